"""The command line's parser: configs may name the package's classes by their short names; mistakes take one line."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from jsonargparse import Namespace, get_loader, set_dumper, set_loader
from jsonargparse.typing import register_type
from lightning.pytorch.cli import LightningArgumentParser
from torch.optim.lr_scheduler import LRScheduler

from ocrnet_pl.cli.config_errors import first_mistake, first_null
from ocrnet_pl.cli.exit_codes import EXIT_USAGE
from ocrnet_pl.cli.short_names import import_rooms
from ocrnet_pl.cli.written_settings import entries, place_of
from ocrnet_pl.data.readers import yaml_text
from ocrnet_pl.errors import DEBUG_VARIABLE
from ocrnet_pl.storage.earlier_settings import config_now
from ocrnet_pl.storage.interpolation import InterpolationError, each_text, resolved
from ocrnet_pl.storage.secrets import MARKER, hidden, redacted, secrets_in, secrets_of_setting
from ocrnet_pl.training.schedules import WHOLE_RUN, whole_run_options

_LONGEST_LINE = 2000


def shortened(line: str) -> str:
    """Return an error's line without the end of a value that fills screens."""
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}..."


def _load(text: str) -> Any:
    """Parse a config, or a value on the command line, if it is harmless."""
    return config_now(yaml_text.load(text, _parse))


def _path(text: Any) -> Path:
    """Return the path of an option; an empty text, as of a variable of the shell that is not set, is none."""
    if text == "":
        raise ValueError("expected a path, got ''")
    return Path(text)


# Files that a config names in turn are parsed by this as well.
_parse = get_loader("yaml")
set_loader("yaml", _load, (yaml_text.YamlError,))
set_dumper("yaml", yaml_text.dump)
register_type(Path, str, _path, type_check=isinstance)
import_rooms()


class Parser(LightningArgumentParser):
    """Says what is wrong in one line instead of the usage of every option."""

    words: ClassVar[list[str]] = []
    """The whole command line."""

    folder: ClassVar[str] = "."
    """The folder that the command line was given in."""

    secrets: ClassVar[frozenset[str]] = frozenset()
    """The credentials that no message may show."""

    @classmethod
    def learn_secrets(cls) -> None:
        """Take note of the credentials that stand in the command line and its config files, which are sound YAML."""
        found = (secrets_of_setting(entry.path, entry.value) for entry in entries(cls.words) if entry.value)
        cls.secrets = frozenset().union(*found)

    def add_class_arguments(self, class_type: type, *args: Any, **options: Any) -> list[str]:
        """Add a class's arguments; what a scheduler is not told of the run's length is the whole of it."""
        added: list[str] = super().add_class_arguments(class_type, *args, **options)
        if isinstance(class_type, type) and issubclass(class_type, LRScheduler):
            for name in whole_run_options(class_type):
                action = next(each for each in self._actions if each.dest == name)
                action.default, action.required = WHOLE_RUN, False
                # Where the parser's earlier versions note it.
                getattr(self, "required_args", set()).discard(name)
        return added

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print one line and exit with status 2; the parser of a part leaves that to the subcommand's."""
        if not self.exit_on_error:
            super().error(message, ex)
        if os.environ.get(DEBUG_VARIABLE) and ex is not None:
            raise ex
        # The parser reads a config inside of its folder, and comes back from there.
        os.chdir(Parser.folder)
        self._refuse(first_mistake(self._of_subcommand(), Parser.words) or " ".join(message.split()))

    def _refuse(self, line: str) -> NoReturn:
        sys.stderr.write(f"error: {shortened(hidden(line, Parser.secrets))}\n")
        sys.exit(EXIT_USAGE)

    def parse_args(self, args: Any = None, *more: Any, **options: Any) -> Namespace:  # type: ignore[override]
        """Parse a command line with its subcommand's parser alone.

        From the parser above that one, the library completes each part a second time and checks each value twice.
        """
        subcommands: Any = getattr(self, "_subcommands_action", None)
        words = [] if args is None else list(args)
        own = subcommands.choices.get(words[0]) if subcommands is not None and words else None
        # What prints the config is the parser above.
        if own is None or any(word.startswith("--print_config") for word in words):
            if args is not None and not self.exit_on_error:
                # To the parser of a part within a part, the library hands null as Python writes it.
                args = [f"{word.removesuffix('=None')}=null" if word.endswith("=None") else word for word in words]
            found: Namespace = super().parse_args(args, *more, **options)
            return found
        of_subcommand = own.parse_args(words[1:], *more, **options)
        if (null := first_null(own, of_subcommand, words)) is not None:
            self._refuse(null)
        return Namespace(config=None, subcommand=words[0], **{words[0]: of_subcommand})

    def dump(self, namespace: Namespace, *args: Any, **options: Any) -> str:
        """Write a config as text, without the credentials in it."""
        # It was checked as it was read; each run dumps it several times.
        text: str = super().dump(redacted(namespace), *args, **options | {"skip_validation": True})
        return text

    def save(self, namespace: Namespace, *args: Any, **options: Any) -> None:
        """Write a config to a file, without checking it a second time."""
        super().save(namespace, *args, **options | {"skip_validation": True})

    def instantiate_classes(self, cfg: Namespace, **options: Any) -> Namespace:
        """Build what a config names, with the values of the environment variables that it refers to."""
        built: Namespace = super().instantiate_classes(self.resolved(cfg), **options)
        return built

    def resolved(self, config: Namespace) -> Namespace:
        """Return a config with the values of the environment variables that it refers to.

        What is not set, and what a saved config lacks because it was a credential, ends the process with one line.
        """

        def refuse_marker(path: str, text: str) -> str:
            if MARKER in text:
                option = path.removeprefix(prefix)
                raise InterpolationError(
                    "this credential was left out when the config was saved; name an environment variable that holds "
                    f"it, as in --{option} '${{oc.env:NAME}}'",
                    path,
                    text,
                )
            return text

        prefix = f"{config.get('subcommand')}."
        try:
            each_text(config, refuse_marker)
            found: Namespace = resolved(config)
        except InterpolationError as error:
            self._refuse(f"{place_of(error.path.removeprefix(prefix), error.text, Parser.words)}: {error}")
        Parser.secrets |= secrets_in(found)
        return found

    def _of_subcommand(self) -> Any:
        """Return the parser of the subcommand that the command line names."""
        subcommands: Any = getattr(self, "_subcommands_action", None)
        return self if subcommands is None else subcommands.choices[Parser.words[0]]
