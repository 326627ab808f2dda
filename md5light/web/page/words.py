"""The texts of the page, in English and in Russian side by side, so that none can be missing."""

from __future__ import annotations

from md5light.download.urls import MAX_CHARACTERS

#: the languages in the order of the texts below
ORDER = ("en", "ru")

#: by the name under which the templates and the cards ask for a text
TEXTS = {
    "title": ("The MD5 of a file on the Internet", "MD5 файла из интернета"),
    "lead": (
        "Paste a link. The file is downloaded for you, in the background, and nothing but its"
        " checksum is kept.",
        "Вставьте ссылку. Мы скачаем файл за вас, в фоне, и сохраним только его контрольную сумму.",
    ),
    "url": ("URL of the file", "URL файла"),
    "email": ("Mail the result to", "Отправить результат на почту"),
    "optional": ("optional", "необязательно"),
    "submit": ("Get the MD5", "Узнать MD5"),
    "jobs": ("Jobs of this browser", "Задания этого браузера"),
    "clear": ("Clear the list", "Очистить список"),
    "unreachable": (
        "The service can't be reached. Check your connection and try again.",
        "Сервис недоступен. Проверьте соединение и попробуйте ещё раз.",
    ),
    "no_such_job": (
        "There is no job at this address. It may have been removed.",
        "По этому адресу задания нет. Возможно, его уже удалили.",
    ),
    "footnote": (
        "An MD5 tells whether a file arrived as it was sent. It does not protect against forgery.",
        "MD5 показывает, дошёл ли файл без искажений. От подделки эта сумма не защищает.",
    ),
    "api": ("For scripts: the API", "Для скриптов: API"),
    "command": ("From a terminal:", "Из терминала:"),
    "no_worker": (
        "No worker is running, so the job waits.",
        "Ни один обработчик не запущен, поэтому задание ждёт.",
    ),
    "no_worker_now": (
        "No worker is running at the moment. Jobs are taken, and wait until one is started.",
        "Сейчас ни один обработчик не запущен. Задания принимаются и ждут его запуска.",
    ),
    "home": ("Another file", "Другой файл"),
    "copy": ("Copy", "Скопировать"),
    "copied": ("Copied", "Скопировано"),
    "selected": ("Selected", "Выделено"),
    "progress": ("Progress", "Ход загрузки"),
    "of": ("{done} of {total}", "{done} из {total}"),
    "rate": ("{size}/s", "{size}/с"),
    "left": ("{time} left", "осталось {time}"),
    "took": ("in {time}", "за {time}"),
    "turn": ("Waiting for its turn", "Ждёт своей очереди"),
    "connecting": ("Connecting", "Соединяемся с сервером"),
    "next_attempt": (
        "Attempt {number} of {total} in {time}",
        "Попытка {number} из {total} через {time}",
    ),
    "rest": (
        "The site asked for a pause: on in {time}",
        "Сайт попросил о паузе: продолжим через {time}",
    ),
    "matched": ("The file is as expected.", "Файл такой, как ожидалось."),
    "mismatched": (
        "The file is not as expected. Different: {different}.",
        "Файл не такой, как ожидалось. Отличаются: {different}.",
    ),
    "page": (
        "It looks like a web page: its type is {type}.",
        "Похоже на веб-страницу: её тип {type}.",
    ),
    "expected": ("Expected {name}", "Ожидаемый {name}"),
    "attempts": ("Attempts", "Попытки"),
    "size": ("Size", "Размер"),
    "final_url": ("Redirected to", "Перенаправлено на"),
    "content_type": ("Type", "Тип"),
    "last_modified": ("Last modified", "Изменён"),
    "created_at": ("Submitted", "Задание принято"),
    "finished_at": ("Finished", "Завершено"),
    "mail": ("Mail", "Письмо"),
    "mail_promised": ("will be sent with the result", "будет отправлено с результатом"),
    "mail_waiting": ("not sent yet", "ещё не отправлено"),
    "mail_sent": ("sent", "отправлено"),
    "mail_failed": ("could not be delivered", "не удалось доставить"),
    "queued": ("Waiting", "В очереди"),
    "running": ("Running", "Загружается"),
    "done": ("Done", "Готово"),
    "failed": ("Failed", "Не удалось"),
    "canceled": ("Canceled", "Отменено"),
}

#: why a job failed or a request was refused, by its code; `{message}` is the API's own message, and
#: `{number}` the first number in it
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
    "invalid_url": (
        "This is no URL that can be downloaded. It has to begin with http:// or https:// and to"
        f" have at most {MAX_CHARACTERS:,} characters, and no password, space or invisible"
        " character.",
        "По такому URL ничего не скачать. Он должен начинаться с http:// или https://, быть не"
        f" длиннее {MAX_CHARACTERS} символов и не содержать пароля, пробелов и невидимых символов.",
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
}
