# plan: what apply would change, field by field, against what is there now.

# The steps of a rollout in their order. Each has a plan_<step>, which prints its changes and makes none, and an apply_<step>.
readonly STEPS=(repository image health_check task_definition listener service alarms)

command_plan() {
  prepare_plan
  print_plan
  if [[ -z $CHANGES ]]; then say "Nothing to change."; fi
}

# Everything that a plan rests on: the facts, no fault among them, and the rendered task definition.
prepare_plan() {
  choose_image
  look_up_everything
  check_everything >"$WORK/check"
  if ((FAULTS)); then
    cat "$WORK/check"
    say
    die "$FAULTS to mend by hand first (FAULT above). Nothing has been changed"
  fi
  require_facts
  render_task_definition
}

# Prints the plan and sets CHANGES to the steps that have something to do.
print_plan() {
  local step changes
  CHANGES=""
  say "account $(fact identity .Account), region $REGION, service $SERVICE"
  for step in "${STEPS[@]}"; do
    changes=$("plan_$step")
    if [[ -z $changes ]]; then continue; fi
    CHANGES+=" $step"
    say
    say "${step//_/ }:"
    # shellcheck disable=SC2001 # sed indents every line, which ${//} cannot
    sed 's/^/  /' <<<"$changes"
  done
  say
}
