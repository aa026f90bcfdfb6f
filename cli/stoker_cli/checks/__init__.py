"""Looks at an app's folder before it is deployed, and tells everything that is wrong with it at once."""

from stoker_cli.checks.findings import Finding, Severity
from stoker_cli.checks.folder import Report, check_folder

__all__ = ["Finding", "Report", "Severity", "check_folder"]
