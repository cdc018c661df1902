# apply: makes the plan true, step by step, and waits until the service has settled. Run again, it does what is missing.

command_apply() {
  prepare_plan
  print_plan
  if [[ -n $CHANGES ]]; then
    confirm "Make these changes?"
  else
    say "Nothing to change."
  fi

  GO_ON="mend the cause and run apply again; what is done is left as it is"
  GO_BACK="$SELF rollback"
  local step steps=("${STEPS[@]}")
  # The alarms are the last of the steps, and not everybody wants them.
  if [[ -z $ALARMS ]]; then unset 'steps[-1]'; fi
  NOT_DONE=("${steps[@]//_/ }")
  if [[ -n $CHANGES ]]; then
    UNDER_WAY="record what is there"
    say "record:"
    write_record
  fi
  for step in "${steps[@]}"; do
    NOT_DONE=("${NOT_DONE[@]:1}")
    UNDER_WAY=${step//_/ }
    apply_step "$step"
    DONE+=("${step//_/ }")
    # The alarms would go off while the tasks are replaced, so they come when all is quiet.
    if [[ $step == service ]]; then settle; fi
  done
  UNDER_WAY="record that it is applied"
  if there record; then set_record_status applied; fi
  UNDER_WAY=""

  say
  say "Applied: $SERVICE runs $(short_revision "$WANTED_REVISION")."
  say "Now see that calls arrive:  $SELF verify <deployment id> <another deployment id>"
  say "Back to what was before:    $SELF rollback"
}

# A step is planned anew at its turn, since the steps before it may have changed what it starts from.
apply_step() {
  local step=$1 changes
  changes=$("plan_$step")
  if [[ -z $changes ]]; then
    say "${step//_/ }: as wanted"
    return
  fi
  say "${step//_/ }:"
  # The plan has shown the single fields, which stand indented, already.
  sed -n '/^ /!s/^/  /p' <<<"$changes"
  "apply_$step"
}

settle() {
  UNDER_WAY="wait until the service is stable"
  say "stable:"
  wait_until_stable "$WANTED_REVISION"
  DONE+=(stable)
}
