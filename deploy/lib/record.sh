# The record: what was there before the rollout, as one JSON document in a Systems Manager parameter, so that whoever has to go back
# needs no file of whoever went forward. Systems Manager keeps its earlier versions (aws ssm get-parameter-history).
#
#   status            applying (begun, not finished), applied, rolled back
#   at, by            when and by whom it was last written
#   image             of Envoy, that the rollout brings
#   taskDefinition    ARN of the revision that the service ran before
#   loadBalancers     the service's target groups before
#   healthCheck       of the A2A target group before
#   listener          the actions of the listener on 50051 before, null where there was none
#   alarms, filters   the names of this project's alarms and metric filters that existed before

# Is what the parameter holds a record?
sound_record() { fact record '.status and .taskDefinition' >/dev/null 2>&1; }

# Is there a rollout that was begun and not finished? Then what is there now is half of its own work and not the way back. Where the
# service has since been moved to something else altogether, that rollout is history.
record_unfinished() {
  there record && sound_record && there service && there revision &&
    [[ $(fact record '.status == "applying" and (.taskDefinition == $now
      or (.image as $image | $revision[0].containerDefinitions | any(.name == "envoy" and .image == $image)))' \
      --arg now "$(fact service .taskDefinition)" --slurpfile revision "$FACTS/revision.json") == true ]]
}

# May the record stay as it is? An apply that leaves the service alone (it adds alarms, or mends what drifted) must not take away
# the way back of the rollout before it.
record_stays() {
  there record && [[ $(fact record .status) == applied && -z $(plan_service) ]]
}

write_record() {
  if record_stays; then
    say "  stays: the service is left as it is, and the way back is $(short_revision "$(fact record .taskDefinition)")"
    return
  fi
  if record_unfinished; then
    say "  kept: the rollout begun $(fact record .at) is unfinished, and its way back stays $(short_revision "$(fact record .taskDefinition)")"
    put_record '.image = $image' --arg image "$(image_reference)"
    return
  fi
  echo '{"status": "applying"}' >"$FACTS/record.json"
  around service listener alarms metric_filters
  put_record '.image = $image | .taskDefinition = $service[0].taskDefinition | .loadBalancers = $service[0].loadBalancers
      | .healthCheck = $healthCheck | .listener = $listener[0].DefaultActions
      | .alarms = [$alarms[0][].AlarmName] | .filters = [$metric_filters[0][]?.filterName]' \
    --arg image "$(image_reference)" --argjson healthCheck "$(health_check_fields)" "${AROUND[@]}"
  say "  $RECORD_PARAMETER: the way back is $(present_revision)"
}

# set_record_status STATUS: does nothing where it has that status.
set_record_status() {
  if [[ $(fact record .status) != "$1" ]]; then put_record '.status = $status' --arg status "$1"; fi
}

# put_record FILTER [jq arguments...]: changes the record by a jq filter.
put_record() {
  local filter=$1 record
  shift
  record=$(fact record "$filter | .at = (now | todate) | .by = \$by | tojson" --arg by "$(fact identity .Arn)" "$@")
  aws ssm put-parameter --name "$RECORD_PARAMETER" --type String --overwrite --value "$record" >/dev/null
  printf '%s\n' "$record" >"$FACTS/record.json"
}
