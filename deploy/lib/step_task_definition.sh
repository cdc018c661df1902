# Step: a revision of the task family with Envoy before PAR, made of deploy/task-definition.json and of what runs now.

# The revision to run: one that is registered already, or "" where it has to be made.
WANTED_REVISION=""

# Fargate kills a container this long after the drain should be over; Envoy needs a few of these seconds to end.
readonly STOP_MARGIN_SECONDS=30

# Renders into $WORK/task-definition.json and settles WANTED_REVISION.
render_task_definition() {
  local values
  values=$(template_values)
  jq --argjson values "$values" -f "$DEPLOY/lib/fill.jq" "$DEPLOY/task-definition.json" >"$WORK/template.json"
  jq -L "$DEPLOY/lib" --slurpfile template "$WORK/template.json" 'include "task_definition"; overlay($template[0])' \
    "$FACTS/revision.json" >"$WORK/task-definition.json"

  # Where an earlier apply has registered it already (or it runs), it is not registered again.
  if there latest_revision && [[ -z $(revision_changes latest_revision) ]]; then
    WANTED_REVISION=$(fact latest_revision .taskDefinitionArn)
  fi
}

template_values() {
  jq -n '($ARGS.named | with_entries(select(.value | type == "string"))) + {
      EXECUTION_ROLE_ARN: $execution_role[0].Arn, TASK_ROLE_ARN: $task_role[0].Arn,
      ADMIN_TOKEN_SECRET_ARN: $secret[0].ARN, LOAD_BALANCER_DNS: $load_balancer[0].DNSName
    } | if .PAR_IMAGE == "" then .PAR_IMAGE = ($revision[0].containerDefinitions[] | select(.name == "par") | .image) else . end' \
    --slurpfile revision "$FACTS/revision.json" --slurpfile load_balancer "$FACTS/load_balancer.json" \
    --slurpfile execution_role "$FACTS/execution_role.json" --slurpfile task_role "$FACTS/task_role.json" \
    --slurpfile secret "$FACTS/secret.json" \
    --arg REGION "$REGION" --arg LOG_GROUP "$LOG_GROUP" --arg TASK_FAMILY "$TASK_FAMILY" \
    --arg TASK_CPU "$TASK_CPU" --arg TASK_MEMORY "$TASK_MEMORY" \
    --arg ENVOY_CPU "$ENVOY_CPU" --arg ENVOY_MEMORY "$ENVOY_MEMORY" \
    --arg PAR_CPU "$((TASK_CPU - ENVOY_CPU))" --arg PAR_MEMORY_RESERVATION "$((TASK_MEMORY - ENVOY_MEMORY))" \
    --arg ENVOY_LOG_LEVEL "$ENVOY_LOG_LEVEL" --arg ENVOY_CONCURRENCY "$ENVOY_CONCURRENCY" \
    --arg ENVOY_DRAIN_SECONDS "$ENVOY_DRAIN_SECONDS" --arg ENVOY_STOP_TIMEOUT "$((ENVOY_DRAIN_SECONDS + STOP_MARGIN_SECONDS))" \
    --arg ENVOY_IMAGE "$(image_reference)" --arg PAR_IMAGE "$PAR_IMAGE"
}

# What of the rendered definition differs from the revision in fact $1, field by field.
revision_changes() {
  jq -r -L "$DEPLOY/lib" --slurpfile wanted "$WORK/task-definition.json" \
    'include "task_definition"; changes(.; $wanted[0])' "$FACTS/$1.json"
}

plan_task_definition() {
  if [[ -z $WANTED_REVISION ]]; then
    say "register a new revision of $TASK_FAMILY; against $(present_revision), which runs now:"
    revision_changes revision | sed 's/^/  /'
  fi
}

apply_task_definition() {
  # The repository may have been made since the plan, and its address is part of the definition.
  render_task_definition
  WANTED_REVISION=$(aws ecs register-task-definition --cli-input-json "$(<"$WORK/task-definition.json")" \
    --query taskDefinition.taskDefinitionArn --output text)
  say "  registered $(short_revision "$WANTED_REVISION")"
}

# family:revision of a task definition's ARN.
short_revision() { say "${1##*/}"; }
present_revision() { short_revision "$(fact service .taskDefinition)"; }

command_render() {
  choose_image
  look_up_everything
  require_facts
  require_things service revision load_balancer execution_role task_role secret
  render_task_definition
  cat "$WORK/task-definition.json"
}
