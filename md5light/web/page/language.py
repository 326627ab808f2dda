"""One of the page's languages: its texts, and how it writes numbers, sizes and times."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timezone

from md5light.web.page.reasons import KINDS, REASONS
from md5light.web.page.rules import translate
from md5light.web.page.words import ORDER, TEXTS

NO_BREAK = "\u00a0"


class Language:
    """A language by its name in `lang` attributes; LANGUAGES holds the two there are."""

    def __init__(
        self,
        name: str,
        *,
        marks: tuple[str, str],
        byte: Callable[[int], str],
        size_units: tuple[str, ...],
        time_units: tuple[str, ...],
    ) -> None:
        place = ORDER.index(name)
        self.name = name
        #: every text by its name
        self.text = {key: texts[place] for key, texts in TEXTS.items()}
        self._reasons = {code: reasons[place] for code, reasons in REASONS.items()}
        self._kinds = {code: kinds[place] for code, kinds in KINDS.items()}
        self._thousands, self._decimal = marks
        self._byte = byte
        self._size_units = size_units
        self._time_units = time_units

    def number(self, value: float, digits: int = 0) -> str:
        """Write a number with its thousands set apart."""
        whole, _, fraction = f"{value:,.{digits}f}".partition(".")
        whole = whole.replace(",", self._thousands)
        return f"{whole}{self._decimal}{fraction}" if fraction else whole

    def bytes(self, count: int) -> str:
        """Write a number of bytes in full."""
        return self.number(count) + NO_BREAK + self._byte(count)

    def size(self, count: float) -> str:
        """Write a number of bytes in the unit that fits, a thousand to the next."""
        unit = 0
        while count >= 999.5 and unit < len(self._size_units):
            count, unit = count / 1000, unit + 1
        if not unit:
            return self.bytes(round(count))
        return self.number(count, 1 if count < 99.95 else 0) + NO_BREAK + self._size_units[unit - 1]

    def duration(self, seconds: float) -> str:
        """Write a time span in one unit or two: `0.3 s`, `45 s`, `2 min`, `1 h 5 min`."""
        if seconds < 0.95:
            return self.number(max(0.1, seconds), 1) + NO_BREAK + self._time_units[0]
        minutes, rest = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        days, hours = divmod(hours, 24)
        parts = list(zip((days, hours, minutes, rest), reversed(self._time_units), strict=True))
        first = next(place for place, (count, _) in enumerate(parts) if count)
        shown = parts[first : first + 2] if first < 2 else parts[first : first + 1]
        return " ".join(f"{count}{NO_BREAK}{unit}" for count, unit in shown if count)

    def time(self, seconds: float) -> str:
        """Write a point in time, in UTC: the server does not know where its reader is."""
        return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"

    def percent(self, part: float, whole: float) -> str:
        """Write a share, rounded down: a hundred means that all is there."""
        return self.text["percent"].format(number=int(100 * part / whole))

    def reason(self, code: str, message: str) -> str:
        """Say in plain words why something failed or was refused; `message` is the API's own."""
        said = message if self.name == "en" else translate(message, self.number)
        if code not in self._reasons:
            return said
        found = re.search(r"\d[\d,]*", message)
        number = found[0].replace(",", self._thousands) if found else ""
        return self._reasons[code].format(number=number, message=said)

    def kind(self, code: str) -> str:
        """Say in plain words what failures of one code have in common."""
        return self._kinds.get(code) or self._reasons.get(code, code)


def _english_byte(count: int) -> str:
    return "byte" if count == 1 else "bytes"


def _russian_byte(count: int) -> str:
    return "байта" if 2 <= count % 10 <= 4 and count // 10 % 10 != 1 else "байт"


LANGUAGES = {
    language.name: language
    for language in (
        Language(
            "en",
            marks=(",", "."),
            byte=_english_byte,
            size_units=("kB", "MB", "GB", "TB"),
            time_units=("s", "min", "h", "d"),
        ),
        Language(
            "ru",
            marks=(NO_BREAK, ","),
            byte=_russian_byte,
            size_units=("кБ", "МБ", "ГБ", "ТБ"),
            time_units=("с", "мин", "ч", "д"),
        ),
    )
}
