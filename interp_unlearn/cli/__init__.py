"""The command line: ``interp-unlearn --help`` teaches it."""

from interp_unlearn.cli._app import app as app
