"""The API's sentences about URLs, lines and lists, one for each rule, in Russian."""

from __future__ import annotations

import re
from collections.abc import Callable

#: by the English sentence; `{name}` in both is what a message has in that place
RULES = {
    # URLs
    "The URL contains a backslash.": "В URL есть обратная косая черта.",
    "The URL is longer than {number} characters.": "URL длиннее {number} символов.",
    "The URL must be absolute and begin with http:// or https://.": (
        "URL должен начинаться с http:// или https://."
    ),
    "The URL must begin with http:// or https://.": "URL должен начинаться с http:// или https://.",
    "The URL contains a space.": "В URL есть пробел.",
    "The URL contains an invisible character.": "В URL есть невидимый символ.",
    "The URL contains a line break.": "В URL есть перевод строки.",
    "The URL contains credentials.": "В URL есть имя или пароль.",
    "The URL's host or port is malformed.": "Имя сервера или порт в URL записаны неверно.",
    "The URL's port is not between 1 and 65535.": "Порт в URL должен быть от 1 до 65535.",
    "The URL has no host.": "В URL нет имени сервера.",
    "The URL's host contains an invisible character.": (
        "В имени сервера в URL есть невидимый символ."
    ),
    "The URL's host is not a possible name.": "Такого имени у сервера быть не может.",
    "The URL's host is not a possible address.": "Такого адреса у сервера быть не может.",
    "The URL's address names a zone.": "В адресе сервера указана зона.",
    # lines
    "The line has no URL.": "В строке нет URL.",
    "The URL must be absolute and begin with http:// or https://, or a base is needed.": (
        "URL должен начинаться с http:// или https://, или нужен URL, к которому добавляются имена."
    ),
    "“{text}” is not a digest (MD5, SHA-1, SHA-256 or SHA-512).": (
        "«{text}» — не контрольная сумма (MD5, SHA-1, SHA-256 или SHA-512)."
    ),
    "“{text}” is not a digest ({algorithm}).": "«{text}» — не контрольная сумма ({algorithm}).",
    "“{text}” is not supported.": "«{text}» не поддерживается.",
    "“{text}” is not a size in bytes.": "«{text}» — не размер в байтах.",
    "The line names two sizes.": "В строке два разных размера.",
    "The line names two digests by {algorithm}.": "В строке две разные суммы {algorithm}.",
    "A line has a URL, a size and a digest, and no more.": (
        "В строке могут быть только URL, размер и контрольная сумма."
    ),
    "The line has no digest and name.": "В строке нет контрольной суммы и имени.",
    "The line has more than three columns.": "В строке больше трёх столбцов.",
    "The line must have a name, a digest and a URL.": (
        "В строке должны быть имя, контрольная сумма и URL."
    ),
    "The line is not of the form ALGORITHM (NAME) = DIGEST.": (
        "Строка не вида АЛГОРИТМ (ИМЯ) = СУММА."
    ),
    "The line has a quote without its end.": "В строке есть кавычка без пары.",
    "The name has an escape that is none of \\\\, \\n and \\r.": (
        "В имени после \\ стоит не \\, не n и не r."
    ),
    "The line must be a JSON object or a URL.": "Строка должна быть объектом JSON или URL.",
    "The line is not valid JSON.": "Строка — не правильный JSON.",
    "The value of “{field}” must be a string or a whole number.": (
        "Значение «{field}» должно быть строкой или целым числом."
    ),
    "The value of “checksums” must be a list.": "Значение «checksums» должно быть списком.",
    "An entry of “checksums” must be an object.": "Элемент «checksums» должен быть объектом.",
    "None of the line's “checksums” is supported.": (
        "Ни одна из сумм в «checksums» не поддерживается."
    ),
    "The row has more cells than the header.": "В строке больше ячеек, чем в заголовке.",
    "The row is not valid CSV: {problem}.": "Строка — не правильный CSV: {problem}.",
    "The row is longer than {number} bytes.": "Строка таблицы длиннее {number} байт.",
    "The line is longer than {number} bytes.": "Строка длиннее {number} байт.",
    "The line contains a NUL byte.": "В строке есть нулевой байт.",
    "The line contains a NUL character.": "В строке есть нулевой символ.",
    "The line contains half of a surrogate pair.": "В строке есть половина суррогатной пары.",
    "The line is not UTF-8: its byte {number} is wrong.": (
        "Строка не в UTF-8: неверен её байт {number}."
    ),
    # whole lists
    "The base must be an absolute http or https URL without query and fragment.": (
        "URL, к которому добавляются имена, должен начинаться с http:// или https://"
        " и не содержать ? и #."
    ),
    "The list is not a JSON array: see line {number}.": (
        "Список — не массив JSON: см. строку {number}."
    ),
    "The list is not UTF-8.": "Список не в UTF-8.",
    "The first line must be {header}.": "Первой строкой должна быть {header}.",
    "The header is not valid CSV: {problem}.": "Заголовок — не правильный CSV: {problem}.",
    "The header names a column twice.": "В заголовке один столбец назван дважды.",
    "The header has no column “url” and no column “name”.": (
        "В заголовке нет ни столбца «url», ни столбца «name»."
    ),
    "The list has more than {number} lines.": "В списке больше строк, чем {number}.",
    "The list is larger than {number} bytes; see [server] max_batch_bytes.": (
        "Список больше {number} байт, см. [server] max_batch_bytes."
    ),
    "`name` is one line of at most {number} characters.": (
        "Название — одна строка, не длиннее {number} символов."
    ),
    # requests
    "A page of another site sent the request: Origin is {origin}, Host is {host}, Sec-Fetch-Site is"
    " {site}, and [server] base_url is {url}. Where a proxy changes Host, set base_url to the"
    " address that browsers show.": (
        "Запрос отправила страница другого сайта: Origin — {origin}, Host — {host},"
        " Sec-Fetch-Site — {site}, а [server] base_url — {url}. Если прокси меняет Host, укажите"
        " в base_url адрес, который показывают браузеры."
    ),
}


def _pattern(sentence: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>.*)", re.escape(sentence)), re.DOTALL)


_PATTERNS = [(_pattern(english), russian) for english, russian in RULES.items()]


def translate(message: str, number: Callable[[int], str]) -> str:
    """Say one of the API's sentences in Russian; `number` writes a number. Others are returned."""
    for pattern, russian in _PATTERNS:
        if match := pattern.fullmatch(message):
            given = match.groupdict()
            if "number" in given:
                given["number"] = number(int(given["number"].replace(",", "")))
            return russian.format(**given)
    return message
