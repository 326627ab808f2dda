"""What is installed, and why each package is needed."""

from pathlib import Path

from setuptools import find_packages, setup

namespace: dict[str, str] = {}
exec(Path("md5light/__init__.py").read_text(encoding="utf-8"), namespace)

setup(
    name="md5light",
    version=namespace["__version__"],
    description="The MD5 of a file on the Internet, without downloading or waiting yourself",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    url="https://github.com/md5light/md5light",
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=["md5light", "md5light.*"]),
    # All files beside the modules.
    package_data={
        "": ["py.typed", *(f"**/*.{kind}" for kind in ("sql", "json", "html", "css", "js", "svg"))]
    },
    install_requires=[
        # The HTTP API: routes, requests, answers and error pages in one small file that needs no
        # other package.
        "bottle>=0.13,<0.14",
        # The server under it: pure Python, buffers slow clients, bounded threads. web/http/ uses
        # parts that are not documented, so no version is taken that was not tested.
        "waitress>=3.0.1,<3.1",
        # Downloads: its adapter keeps idle connections, one pool for each host; and the bundle of
        # certificates that it brings along.
        "requests>=2.32.2,<3",
        # requests' engine, named because its pools keep connections that are made here: the tests
        # run with the oldest and the newest of this range.
        "urllib3>=2.2,<3",
        # Names outside ASCII, in the URLs that /submit takes; requests brings it along.
        "idna>=3.4,<4",
        # Decides what is a mail address, internationalised domains included.
        "email-validator>=2.1,<3",
    ],
    extras_require={
        # For a queue that several machines share.
        "postgres": ["psycopg[binary]>=3.2,<4"],
        "test": [
            "pytest>=8",
            "pytest-timeout",
            "pytest-xdist",
            # How much of md5light/ the tests reach, from every process of pytest-xdist.
            "pytest-cov>=6",
            # Packages are built as their users build them.
            "build",
            # The other database.
            "psycopg[binary]>=3.2,<4",
            # A real mail server, and an authority for certificates, on loopback.
            "aiosmtpd>=1.4.6",
            "trustme>=1.1",
            # openapi.json is held against its own specification, and answers against openapi.json.
            "openapi-spec-validator>=0.7",
            # /metrics is read by those who define the format.
            "prometheus_client",
            # The page is used as people use it: in a real Chromium, the system's own.
            "playwright",
            # axe-core, without a download: what it finds would keep somebody from using the page.
            "axe-playwright-python",
            # Lists with all names that there can be: what is written must be read again.
            "hypothesis",
            # Two programs that read manifests and write lists.
            "bagit",
            "pooch",
        ],
        # Other job queues, for scripts/bench/compare.py only.
        "bench": ["huey", "rq", "celery[redis]", "dramatiq[redis]", "procrastinate"],
        "lint": ["ruff", "mypy", "types-requests", "types-jsonschema", "import-linter>=2"],
    },
    entry_points={
        "console_scripts": [
            "md5light = md5light.cli:main",
            "md5light-server = md5light.cli:server",
            "md5light-worker = md5light.cli:worker",
        ]
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: No Input/Output (Daemon)",
        "Intended Audience :: System Administrators",
        "License :: OSI Approved :: MIT License",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Internet :: WWW/HTTP",
        "Typing :: Typed",
    ],
)
