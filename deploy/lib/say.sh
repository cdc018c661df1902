# How the script speaks: one line a fact on stdout, faults on stderr.

say() { printf '%s\n' "$*"; }

# A fault that ends the command. A second argument says how to mend it.
die() {
  printf 'pixell-envoy: %s\n' "$1" >&2
  if [[ -n ${2:-} ]]; then printf '  mend: %s\n' "$2" >&2; fi
  exit 1
}

# need PROGRAM HOW-TO-GET-IT
need() {
  command -v "$1" >/dev/null || die "$1 is not on the PATH" "$2"
}

# Asks a person to confirm; machines say --yes.
confirm() {
  local answer
  if [[ -n $YES ]]; then return; fi
  [[ -t 0 ]] || die "nobody to ask: standard input is no terminal, and --yes was not given. Nothing has been changed"
  read -r -p "$1 [y/N] " answer || answer=""
  [[ $answer == [yY] || $answer == [yY][eE][sS] ]] || die "not confirmed. Nothing has been changed"
}

# A directory for this run's facts, gone when the script ends however it ends.
make_work_directory() {
  WORK=$(mktemp -d "${TMPDIR:-/tmp}/pixell-envoy.XXXXXX")
  FACTS=$WORK/facts
  mkdir "$FACTS"
  readonly WORK FACTS
  trap 'on_exit $?' EXIT
  # Without these, bash would run the EXIT trap with the status of the last command and hide that it was stopped.
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

on_exit() {
  if (($1 != 0)); then report_stop; fi
  rm -rf "$WORK"
  # A program that failed under `set -e` leaves its own status, which would say nothing here.
  case $1 in 0 | 1 | 130 | 143) ;; *) exit 1 ;; esac
}

# Words with commas between them.
listed() {
  local text
  printf -v text ', %s' "${@:-nothing}"
  say "${text#, }"
}

# What a command that changes things says when it stops half way; apply and rollback keep these up to date.
UNDER_WAY="" DONE=() NOT_DONE=() GO_ON="" GO_BACK=""
report_stop() {
  if [[ -z $UNDER_WAY ]]; then return; fi
  {
    say
    say "STOPPED at: $UNDER_WAY"
    say "  done:     $(listed "${DONE[@]}")"
    say "  not done: $(listed "${NOT_DONE[@]}")"
    say "  go on:    $GO_ON"
    say "  go back:  $GO_BACK"
  } >&2
}
