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
  local listener=null
  if record_stays; then
    say "  stays: the service is left as it is, and the way back is $(short_revision "$(fact record .taskDefinition)")"
    return
  fi
  if record_unfinished; then
    say "  kept: the rollout begun $(fact record .at) is unfinished, and its way back stays $(short_revision "$(fact record .taskDefinition)")"
    put_record '.image = $image' --arg image "$(image_reference)"
    return
  fi
  if there listener; then listener=$(fact listener .DefaultActions); fi
  echo '{"status": "applying"}' >"$FACTS/record.json"
  put_record '. + ($ARGS.named | del(.by))' \
    --arg image "$(image_reference)" \
    --arg taskDefinition "$(fact service .taskDefinition)" \
    --argjson loadBalancers "$(fact service .loadBalancers)" \
    --argjson healthCheck "$(health_check_fields)" \
    --argjson listener "$listener" \
    --argjson alarms "$(fact alarms 'map(.AlarmName)')" \
    --argjson filters "$(fact metric_filters '(. // []) | map(.filterName)')"
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
