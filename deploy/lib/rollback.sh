# rollback: back to what apply recorded, or to a revision of the task family.
#
# The service goes first, so that calls are served again as early as can be; what pointed at Envoy is undone once no task of the new
# revision is left.

command_rollback() {
  look_up_everything
  require_facts
  there service || die "service $SERVICE does not exist in $CLUSTER" "check the settings"
  choose_target
  print_rollback
  if [[ -n $CHANGES ]]; then
    confirm "Go back?"
  else
    say "Nothing to change: this is what was there before."
  fi

  GO_ON="mend the cause and run rollback again; what is done is left as it is"
  GO_BACK="$SELF apply"
  NOT_DONE=(service stable "${BACK_STEPS[@]//_/ }")
  back_step service
  NOT_DONE=("${NOT_DONE[@]:1}")
  UNDER_WAY="wait until the service is stable"
  say "stable:"
  wait_until_stable "$TARGET_REVISION"
  DONE+=(stable)
  local step
  for step in "${BACK_STEPS[@]}"; do back_step "$step"; done
  UNDER_WAY="record that it is rolled back"
  if there record; then set_record_status "rolled back"; fi
  UNDER_WAY=""

  say
  say "Rolled back: $SERVICE runs $(short_revision "$TARGET_REVISION") with $(target_names)."
  say "The image, its repository, the registered revisions and the log group stay: nothing uses them."
}

# Where to go: TARGET_REVISION (an ARN), TARGET_LOAD_BALANCERS, and the steps after the service that undo the rest.
choose_target() {
  BACK_STEPS=()
  if [[ -n $REVISION ]]; then
    look target_revision ClientException taskDefinition ecs describe-task-definition --task-definition "$TASK_FAMILY:$REVISION"
    there target_revision || die "$TASK_FAMILY:$REVISION does not exist" "$(list_revisions)"
    TARGET_LOAD_BALANCERS=$(load_balancers_of_target)
  elif there record; then
    sound_record || die "$RECORD_PARAMETER holds no record of this script" "rollback --revision N; $(list_revisions)"
    look target_revision ClientException taskDefinition ecs describe-task-definition --task-definition "$(fact record .taskDefinition)"
    there target_revision || die "the recorded $(fact record .taskDefinition) does not exist any more" "rollback --revision N; $(list_revisions)"
    if [[ $(fact record .status) == "rolled back" && $(fact service .taskDefinition) != "$(fact record .taskDefinition)" ]]; then
      die "the recorded rollout was rolled back at $(fact record .at), and somebody has moved the service to $(present_revision) since" \
        "to go to a revision all the same: rollback --revision N; $(list_revisions)"
    fi
    TARGET_LOAD_BALANCERS=$(fact record .loadBalancers)
    BACK_STEPS=(listener health_check alarms)
  else
    die "nothing is recorded in $RECORD_PARAMETER, so apply has changed nothing here" "to go to a revision all the same: rollback --revision N; $(list_revisions)"
  fi
  TARGET_REVISION=$(fact target_revision .taskDefinitionArn)
  [[ $(fact target_revision .status) == ACTIVE ]] || die "$(short_revision "$TARGET_REVISION") is deregistered, ECS does not run it" "rollback --revision N; $(list_revisions)"
}

# The newest revisions of the family, for a person to choose from.
list_revisions() {
  say "the newest revisions: $(aws ecs list-task-definitions --family-prefix "$TASK_FAMILY" --sort DESC --max-items 5 |
    jq -r '[.taskDefinitionArns[] | split("/")[1]] | join(", ")')"
}

# For a revision without a record: each target group whose container the revision has; that is the REST target group alone where
# there is no envoy in it.
load_balancers_of_target() {
  wanted_load_balancers | jq -c --slurpfile revision "$FACTS/target_revision.json" \
    'map(select(.containerName as $name | $revision[0].containerDefinitions | any(.name == $name)))'
}

target_names() { jq -r 'map("\(.containerName):\(.containerPort) in \(.targetGroupArn | split("/")[1])") | join(" and ")' <<<"$TARGET_LOAD_BALANCERS"; }

print_rollback() {
  local step changes
  CHANGES=""
  say "account $(fact identity .Account), region $REGION, service $SERVICE: back to $(short_revision "$TARGET_REVISION")"
  for step in service "${BACK_STEPS[@]}"; do
    changes=$("back_plan_$step")
    if [[ -z $changes ]]; then continue; fi
    CHANGES+=" $step"
    say
    say "${step//_/ }:"
    # shellcheck disable=SC2001 # sed indents every line, which ${//} cannot
    sed 's/^/  /' <<<"$changes"
  done
  say
}

back_step() {
  local step=$1 changes
  NOT_DONE=("${NOT_DONE[@]:1}")
  UNDER_WAY=${step//_/ }
  changes=$("back_plan_$step")
  if [[ -z $changes ]]; then
    say "${step//_/ }: as it was"
  else
    say "${step//_/ }:"
    # shellcheck disable=SC2001 # sed indents every line, which ${//} cannot
    sed 's/^/  /' <<<"$changes"
    "back_$step"
  fi
  DONE+=("${step//_/ }")
}

# Another revision brings other images, which may not be what was meant where others have deployed since: so they are shown.
back_plan_service() {
  local changes
  changes=$(service_changes "$TARGET_REVISION" "$TARGET_LOAD_BALANCERS")
  if [[ -z $changes ]]; then return; fi
  say "$changes"
  fact revision 'def images: [.containerDefinitions[] | {key: .name, value: .image}] | from_entries;
    images as $is | ($target[0] | images) as $to | ($is + $to | keys[]) | select($is[.] != $to[.])
    | "\(.).image: \($is[.] // "(none)") -> \($to[.] // "(none)")"' --slurpfile target "$FACTS/target_revision.json"
}
back_service() { set_service "$TARGET_REVISION" "$TARGET_LOAD_BALANCERS"; }

back_plan_health_check() { if there a2a; then health_check_changes "$(fact record .healthCheck)"; fi; }
back_health_check() { set_health_check "$(fact record .healthCheck)"; }

back_plan_alarms() { plan_alarms_back; }
back_alarms() { apply_alarms_back; }

back_plan_listener() {
  if ! there listener || ! there a2a; then return; fi
  if [[ $(fact record .listener) == null ]]; then
    # Ours only as long as it forwards to our target group.
    if listener_is_ours; then say "$LOAD_BALANCER: delete listener $A2A_PORT"; fi
  elif [[ $(fact listener .DefaultActions) != "$(fact record .listener)" ]]; then
    say "$LOAD_BALANCER listener $A2A_PORT: $(listener_targets) -> as it was"
  fi
}
back_listener() {
  if [[ $(fact record .listener) == null ]]; then
    aws elbv2 delete-listener --listener-arn "$(fact listener .ListenerArn)"
    echo null >"$FACTS/listener.json"
  else
    aws elbv2 modify-listener --listener-arn "$(fact listener .ListenerArn)" --default-actions "$(fact record '.listener | tojson')" >/dev/null
  fi
}
