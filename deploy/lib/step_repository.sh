# Step: the ECR repository exists, scans what is pushed, and never lets a tag change its meaning.

plan_repository() {
  # An image that is given (--image) may live anywhere, and needs no repository of ours.
  if [[ -n $IMAGE ]]; then return; fi
  if ! there repository; then
    say "create $REPOSITORY with scan on push and immutable tags"
    return
  fi
  fact repository '
    (if .imageScanningConfiguration.scanOnPush then empty else "\($name).scanOnPush: false -> true" end),
    (if .imageTagMutability == "IMMUTABLE" then empty else "\($name).imageTagMutability: \(.imageTagMutability) -> IMMUTABLE" end)
  ' --arg name "$REPOSITORY"
}

apply_repository() {
  if ! there repository; then
    aws ecr create-repository --repository-name "$REPOSITORY" --image-tag-mutability IMMUTABLE \
      --image-scanning-configuration scanOnPush=true --query repository >"$FACTS/repository.json"
    return
  fi
  aws ecr put-image-scanning-configuration --repository-name "$REPOSITORY" --image-scanning-configuration scanOnPush=true >/dev/null
  aws ecr put-image-tag-mutability --repository-name "$REPOSITORY" --image-tag-mutability IMMUTABLE >/dev/null
}
