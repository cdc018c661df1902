# The settings file: KEY=value lines, parsed and never executed. A key that is missing, unknown, given twice or has a value
# that cannot be right is a fault, and all faults are told at once.

# Every key, and the pattern that its value must match.
declare -rA SETTING_PATTERNS=(
  [REGION]='[a-z]{2}(-[a-z]+)+-[0-9]'
  [CLUSTER]='[A-Za-z0-9_-]+'
  [SERVICE]='[A-Za-z0-9_-]+'
  [LOAD_BALANCER]='[A-Za-z0-9-]+'
  [A2A_TARGET_GROUP]='[A-Za-z0-9-]+'
  [REST_TARGET_GROUP]='[A-Za-z0-9-]+'
  [LOG_GROUP]='[A-Za-z0-9_./#-]+'
  [EXECUTION_ROLE]='[A-Za-z0-9+=,.@_-]+'
  [TASK_ROLE]='[A-Za-z0-9+=,.@_-]+'
  [ADMIN_TOKEN_SECRET]='[A-Za-z0-9/_+=.@-]+'
  [RECORD_PARAMETER]='/[A-Za-z0-9_./-]+'
  [REPOSITORY]='[a-z0-9._/-]+'
  [IMAGE_TAG]='([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?'
  [IMAGE_PLATFORM]='linux/(amd64|arm64)'
  [CONTAINER_ENGINE]='[A-Za-z0-9_./-]+'
  [PAR_IMAGE]='[^[:space:]]*'
  [TASK_FAMILY]='[A-Za-z0-9_-]+'
  [TASK_CPU]='[1-9][0-9]*'
  [TASK_MEMORY]='[1-9][0-9]*'
  [ENVOY_CPU]='[1-9][0-9]*'
  [ENVOY_MEMORY]='[1-9][0-9]*'
  [ENVOY_CONCURRENCY]='[1-9][0-9]*'
  [ENVOY_LOG_LEVEL]='trace|debug|info|warning|error|critical|off'
  [ENVOY_DRAIN_SECONDS]='0|[1-8]?[0-9]|90'
  [STABLE_TIMEOUT_SECONDS]='[1-9][0-9]*'
  [VERIFY_TIMEOUT_SECONDS]='[1-9][0-9]*'
  [POLL_SECONDS]='[0-9]+(\.[0-9]+)?'
  [ALARM_TOPIC]='[A-Za-z0-9_-]*'
  [ALARM_REJECTED_PER_5_MINUTES]='[1-9][0-9]*'
)

read_settings() {
  local file=$1 line number=0 key value faults=()
  local -A seen=()
  [[ -r $file ]] || settings_fault "$file cannot be read" \
    "cp $DEPLOY/settings.example.env $DEPLOY/settings.env, change what differs, or pass --settings FILE"

  while IFS= read -r line || [[ -n $line ]]; do
    number=$((number + 1))
    line=${line%$'\r'}
    if [[ -z $line || $line == \#* ]]; then continue; fi
    if [[ ! $line =~ ^([A-Z][A-Z0-9_]*)=(.*)$ ]]; then
      faults+=("line $number is not KEY=value")
      continue
    fi
    key=${BASH_REMATCH[1]} value=${BASH_REMATCH[2]}
    if [[ ! -v SETTING_PATTERNS[$key] ]]; then
      faults+=("line $number: unknown key $key")
    elif [[ -v seen[$key] ]]; then
      faults+=("line $number: $key is given a second time")
    elif [[ ! $value =~ ^(${SETTING_PATTERNS[$key]})$ ]]; then
      faults+=("line $number: $key cannot be '$value'")
      seen[$key]=yes
    else
      printf -v "$key" '%s' "$value"
      seen[$key]=yes
    fi
  done <"$file"
  for key in "${!SETTING_PATTERNS[@]}"; do
    [[ -v seen[$key] ]] || faults+=("$key is missing")
  done
  if ((${#faults[@]} == 0)); then size_faults; fi
  if ((${#faults[@]})); then
    settings_fault "$file: $(printf '\n  %s' "${faults[@]}")" "$DEPLOY/settings.example.env shows every key"
  fi

  # The AWS CLI, version 1 or 2: this region, JSON, and no pager or prompt that would wait for a key.
  export AWS_REGION=$REGION AWS_DEFAULT_REGION=$REGION AWS_DEFAULT_OUTPUT=json AWS_PAGER="" AWS_CLI_AUTO_PROMPT=off
}

# Envoy's share has to leave PAR something. Adds to the caller's `faults`.
size_faults() {
  ((ENVOY_CPU < TASK_CPU)) || faults+=("ENVOY_CPU $ENVOY_CPU leaves PAR nothing of TASK_CPU $TASK_CPU")
  ((ENVOY_MEMORY < TASK_MEMORY)) || faults+=("ENVOY_MEMORY $ENVOY_MEMORY leaves PAR nothing of TASK_MEMORY $TASK_MEMORY")
  [[ $IMAGE_TAG != latest ]] || faults+=("IMAGE_TAG latest says nothing about what runs: give each image its own tag")
}

settings_fault() {
  printf 'pixell-envoy: settings: %s\n  mend: %s\n' "$1" "$2" >&2
  exit 2
}
