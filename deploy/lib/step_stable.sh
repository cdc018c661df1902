# Step: wait until the service has settled on a revision. ECS replaces tasks in its own time; what it does is shown as it happens.

# wait_until_stable REVISION: REVISION is the task definition's ARN.
wait_until_stable() {
  local revision=$1 began=$SECONDS failures=0 shown="" state verdict
  while :; do
    look service ServiceNotFoundException 'services[0]' ecs describe-services --cluster "$CLUSTER" --services "$SERVICE"
    if refused service; then
      # One answer that does not come is no reason to leave; the deployment goes on without us.
      failures=$((failures + 1))
      ((failures < 5)) || die "cannot see the service any more: $(refusal service)" "see in the console how the deployment goes on"
    else
      failures=0
      state=$(fact service "$(<"$DEPLOY/lib/deployment.jq")" --arg revision "$revision")
      verdict=${state%%$'\t'*} state=${state#*$'\t'}
      if [[ $state != "$shown" ]]; then
        printf '  %4ds  %s\n' "$((SECONDS - began))" "$state"
        shown=$state
      fi
      case $verdict in
        stable) return ;;
        failed)
          show_stopped_tasks
          die "the deployment of $(short_revision "$revision") failed" "the reasons above; docs/deploy.md, Troubleshooting"
          ;;
      esac
    fi
    if ((SECONDS - began >= STABLE_TIMEOUT_SECONDS)); then
      show_stopped_tasks
      die "the service is not stable after $STABLE_TIMEOUT_SECONDS s" "the reasons above; docs/deploy.md, Troubleshooting"
    fi
    sleep "$POLL_SECONDS"
  done
}

# Why tasks of the service ended lately, and each container of theirs.
show_stopped_tasks() {
  local tasks
  mapfile -t tasks < <(aws ecs list-tasks --cluster "$CLUSTER" --service-name "$SERVICE" --desired-status STOPPED | jq -r '.taskArns[:3][]')
  if ((${#tasks[@]} == 0)); then return; fi
  say "  stopped tasks:"
  aws ecs describe-tasks --cluster "$CLUSTER" --tasks "${tasks[@]}" | jq -r '.tasks[]
    | "    \(.taskArn | split("/")[-1]) of \(.taskDefinitionArn | split("/")[-1]): \(.stoppedReason // "no reason given")",
      (.containers[] | "      \(.name): \(.lastStatus // "?"), health \(.healthStatus // "?")\(if .exitCode == null then "" else ", exit code \(.exitCode)" end)\(if .reason then ", \(.reason)" else "" end)")'
}
