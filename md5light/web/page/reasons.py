"""Reasons of failures and refusals, in English and in Russian side by side."""

from __future__ import annotations

#: why a job failed or a request was refused, by its code; `{message}` is the API's own message, and
#: `{number}` the first number in it. Codes that are not here have a message for people (`rules`).
REASONS = {
    # of failed jobs
    "address_not_allowed": (
        "This URL leads into a private network, where the service does not go.",
        "Этот URL ведёт в закрытую сеть, туда сервис не обращается.",
    ),
    "port_not_allowed": (
        "The service does not download from port {number}.",
        "Сервис не скачивает с порта {number}.",
    ),
    "name_not_found": (
        "No server of this name was found. Is the name spelt right?",
        "Сервер с таким именем не найден. Нет ли в имени опечатки?",
    ),
    "connection_failed": (
        "The server could not be reached, or it broke off the connection.",
        "Не удалось соединиться с сервером, или он оборвал соединение.",
    ),
    "tls_failed": (
        "No secure connection to the server was possible: its certificate is not trusted, or"
        " encryption failed.",
        "Не удалось установить защищённое соединение: сертификату сервера нельзя доверять, или"
        " произошёл сбой TLS.",
    ),
    "timed_out": (
        "The server was silent for too long, or the download took too long.",
        "Сервер слишком долго молчал, или загрузка заняла слишком много времени.",
    ),
    "http_status": (
        "Instead of the file the server sent the error {number}.",
        "Вместо файла сервер прислал ошибку {number}.",
    ),
    "too_many_redirects": (
        "The server redirects again and again.",
        "Сервер перенаправляет снова и снова.",
    ),
    "bad_redirect": (
        "The server redirects to something that can't be downloaded.",
        "Сервер перенаправляет на то, что нельзя скачать.",
    ),
    "too_large": (
        "The file is larger than this service accepts.",
        "Файл больше, чем принимает этот сервис.",
    ),
    "incomplete": (
        "The connection broke off before the file had arrived whole.",
        "Соединение оборвалось раньше, чем файл пришёл целиком.",
    ),
    "bad_response": (
        "The server's answer makes no sense.",
        "Ответ сервера не удалось разобрать.",
    ),
    "worker_lost": (
        "Something went wrong with the service itself, at every attempt. You may submit the URL"
        " again.",
        "Что-то пошло не так в самом сервисе, при каждой попытке. URL можно отправить ещё раз.",
    ),
    "canceled": ("The job was canceled.", "Задание отменено."),
    # of refused requests
    "missing_parameter": ("Enter the URL of a file.", "Укажите URL файла."),
    "repeated_parameter": (
        "Either paste lines or choose a file, not both.",
        "Вставьте строки или выберите файл — что-то одно.",
    ),
    "invalid_email": (
        "This is not a mail address to which the service can write.",
        "На такой почтовый адрес сервис написать не может.",
    ),
    "too_many_submits": (
        "That was a lot of files at once. Please go on in a minute.",
        "Слишком много файлов сразу. Продолжите, пожалуйста, через минуту.",
    ),
    "too_many_unfinished": (
        "As many of your files are waiting as this service takes from one person. Please go on"
        " when some are done.",
        "В очереди уже столько ваших файлов, сколько сервис принимает от одного человека."
        " Продолжите, когда часть будет готова.",
    ),
    "too_many_mails": (
        "This mail address has been sent many results lately. Try later, or leave the address out.",
        "На этот адрес недавно ушло много писем. Попробуйте позже или не указывайте адрес.",
    ),
    "wrong_token": (
        "The token, or its name, is wrong. Send it once more, and log in with the right ones.",
        "Токен или его имя неверны. Отправьте ещё раз и войдите с правильными.",
    ),
    "unauthorized": (
        "This service is for those who have a token. Send it once more, and log in with the name"
        " and the token when the browser asks.",
        "Этот сервис — для тех, у кого есть токен. Отправьте ещё раз и войдите: браузер спросит имя"
        " и токен.",
    ),
    "too_many_failures": (
        "There were too many wrong tokens from your address. Please try again in a minute.",
        "С вашего адреса слишком часто приходил неверный токен. Попробуйте снова через минуту.",
    ),
    "tokens_unavailable": (
        "The service can't check tokens just now. Please try again in a moment.",
        "Сервис временно не может проверить токен. Попробуйте, пожалуйста, чуть позже.",
    ),
    "queue_full": (
        "Too many files are waiting. Please try again in a few minutes.",
        "Слишком много файлов ждут своей очереди. Попробуйте, пожалуйста, через несколько минут.",
    ),
    "database_unavailable": (
        "The service can't do this just now. Please try again in a moment.",
        "Сервис временно не может этого сделать. Попробуйте, пожалуйста, чуть позже.",
    ),
    "cross_site": (
        "This form was sent by another web site, so nothing was done. {message}",
        "Эту форму отправил другой сайт, поэтому ничего не сделано. {message}",
    ),
    # of refused lists
    "empty_list": ("The list has no lines.", "В списке нет строк."),
    "invalid_lines": (
        "{number} lines can't be read, so nothing was taken.",
        "Не удалось разобрать строк: {number}. Поэтому ничего не принято.",
    ),
    "too_many_lists": (
        "Many lists are being sent just now. Please try again in a moment.",
        "Сейчас отправляют много списков. Попробуйте, пожалуйста, чуть позже.",
    ),
}

#: sentences about several failures of one code, if REASONS has one about a single failure
KINDS = {
    "http_status": (
        "Instead of the file the server sent an error.",
        "Вместо файла сервер прислал ошибку.",
    ),
    "port_not_allowed": (
        "The service does not download from this port.",
        "Сервис не скачивает с этого порта.",
    ),
    "invalid_url": ("The line has no valid URL.", "В строке нет правильного URL."),
    "missing_url": ("The line has no URL.", "В строке нет URL."),
    "invalid_digest": ("The digest is malformed.", "Это не контрольная сумма нужного вида."),
    "unsupported_digest": (
        "The digest's algorithm is not supported.",
        "Такие контрольные суммы не поддерживаются.",
    ),
    "invalid_size": ("The size is malformed.", "Размер должен быть целым числом байтов."),
    "contradiction": ("The line contradicts itself.", "Строка противоречит себе."),
    "invalid_line": ("The line is malformed.", "Строку не удалось разобрать."),
    "invalid_name": ("The name is malformed.", "Имя не удалось разобрать."),
    "invalid_csv": ("The row is malformed.", "Строку CSV не удалось разобрать."),
    "invalid_json": ("The line is not JSON.", "Это не JSON."),
    "invalid_value": ("A value is of the wrong kind.", "Значение не того вида."),
    "invalid_text": ("The line is not UTF-8 text.", "Это не текст в UTF-8."),
    "line_too_long": ("The line is too long.", "Строка слишком длинная."),
}
