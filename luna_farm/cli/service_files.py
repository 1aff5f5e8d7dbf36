"""What makes a farm a service of the user who logs in: a file for systemd, launchd or the Task Scheduler, and
the commands that put it in place.

Pure: it returns texts and commands. It must never run one, write a file or ask which platform this is.
"""

from __future__ import annotations

import plistlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from xml.sax.saxutils import escape

from luna_farm import DOCUMENTATION

NAME = "luna-farm"
TASK = "Luna Farm"
STOP_S = 90
"""A stop finishes what was accepted, within 80 s."""


@dataclass(frozen=True, slots=True)
class Service:
    """The service of one platform: a file, and commands to run in order."""

    path: PurePath
    content: bytes
    install: tuple[tuple[str, ...], ...]
    uninstall: tuple[tuple[str, ...], ...]
    status: tuple[str, ...]
    hint: str = ""


def systemd(start: Sequence[str], home: PurePath) -> Service:
    """Return a unit of the user's systemd that runs `start`."""
    unit = f"{NAME}.service"
    control = ("systemctl", "--user")
    return Service(
        home / ".config" / "systemd" / "user" / unit,
        systemd_unit(start).encode(),
        install=((*control, "daemon-reload"), (*control, "enable", "--now", unit)),
        uninstall=((*control, "disable", "--now", unit),),
        status=(*control, "--no-pager", "status", unit),
        hint='It ends when you log out. To let it run on: loginctl enable-linger "$USER"',
    )


def systemd_unit(start: Sequence[str]) -> str:
    """Return the text of the unit."""
    return f"""\
[Unit]
Description=Luna Farm, saves images in the background
Documentation={DOCUMENTATION}

[Service]
Type=notify
ExecStart={" ".join(map(_systemd_word, start))}
# READY comes when the port is open, and a sign of life twice in this time; without one it is restarted.
WatchdogSec=30
Restart=on-failure
# A stop finishes what was accepted (80 s at most); the rest waits in the journal for the next start.
TimeoutStopSec={STOP_S}
KillMode=mixed
# Gives way to the programs that make the images.
Nice=5
NoNewPrivileges=yes
ProtectSystem=full
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
LimitNOFILE=4096

[Install]
WantedBy=default.target
"""


def launchd(start: Sequence[str], home: PurePath, uid: int) -> Service:
    """Return a launch agent of the user that runs `start`."""
    path = home / "Library" / "LaunchAgents" / f"{NAME}.plist"
    agent = {
        "Label": NAME,
        "ProgramArguments": list(start),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ProcessType": "Background",
        "ExitTimeOut": STOP_S,
    }
    domain = f"gui/{uid}"
    return Service(
        path,
        plistlib.dumps(agent, sort_keys=False),
        install=(("launchctl", "bootstrap", domain, str(path)),),
        uninstall=(("launchctl", "bootout", f"{domain}/{NAME}"),),
        status=("launchctl", "print", f"{domain}/{NAME}"),
    )


def windows(start: Sequence[str], local: PurePath, user: str, stop: Sequence[str]) -> Service:
    """Return a scheduled task that runs `start` when `user` logs on. `stop` ends the farm: Windows would end
    a task without asking it to finish. `local`: the folder for data of this user."""
    path = local / NAME / "service.xml"
    return Service(
        path,
        task(start, user).encode("utf-16"),
        install=(
            ("schtasks", "/Create", "/F", "/TN", TASK, "/XML", str(path)),
            ("schtasks", "/Run", "/TN", TASK),
        ),
        uninstall=(tuple(stop), ("schtasks", "/Delete", "/F", "/TN", TASK)),
        status=("schtasks", "/Query", "/TN", TASK, "/V", "/FO", "LIST"),
    )


def task(start: Sequence[str], user: str) -> str:
    """Return the definition of the task: at logon, without a window, started again when it fails."""
    program, *arguments = start
    return f"""\
<?xml version="1.0" encoding="UTF-16"?>
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo><Description>Luna Farm, saves images in the background</Description></RegistrationInfo>
  <Triggers>
    <LogonTrigger><Enabled>true</Enabled><UserId>{escape(user)}</UserId></LogonTrigger>
  </Triggers>
  <Principals>
    <Principal id="Author">
      <UserId>{escape(user)}</UserId>
      <LogonType>InteractiveToken</LogonType>
      <RunLevel>LeastPrivilege</RunLevel>
    </Principal>
  </Principals>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <ExecutionTimeLimit>PT0S</ExecutionTimeLimit>
    <RestartOnFailure><Interval>PT1M</Interval><Count>999</Count></RestartOnFailure>
  </Settings>
  <Actions Context="Author">
    <Exec>
      <Command>{escape(program)}</Command>
      <Arguments>{escape(" ".join(map(_windows_word, arguments)))}</Arguments>
    </Exec>
  </Actions>
</Task>
"""


def _systemd_word(word: str) -> str:
    """Quote a word of ExecStart= (systemd.service(5)): % and $ mean something there."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{word}"' if any(character in word for character in " \t'\"\\;") else word


def _windows_word(word: str) -> str:
    """Quote an argument as the C library of Windows takes it apart."""
    if word and not any(character in word for character in ' \t"'):
        return word
    from subprocess import list2cmdline

    return list2cmdline([word])
