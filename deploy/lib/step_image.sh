# Step: the image is in the repository under a tag that is used once.

# The tag to build and push; "" where an image is given (--image) or none is needed.
TAG=""

# Settles TAG, and with it what runs, before anything is looked up.
choose_image() {
  local root commit version
  if [[ -n $IMAGE ]]; then return; fi
  TAG=$IMAGE_TAG
  if [[ -n $TAG ]]; then return; fi
  need git "apt-get install git, or set IMAGE_TAG in the settings"
  root=$(source_root)
  commit=$(git -C "$root" rev-parse --short=12 HEAD) || die "$root is no git work tree, so there is no commit to name the image after" \
    "set IMAGE_TAG in the settings"
  [[ -z $(git -C "$root" status --porcelain) ]] || die "the work tree has changes that no commit names" \
    "commit them, or set IMAGE_TAG in the settings"
  version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml")
  TAG=$version-$commit
}

source_root() { dirname "$DEPLOY"; }

# The image as the task definition names it.
image_reference() {
  if [[ -n $IMAGE ]]; then
    say "$IMAGE"
  elif there repository; then
    say "$(fact repository .repositoryUri):$TAG"
  else
    # Where the repository will be once it is made.
    say "$(fact identity .Account).dkr.ecr.$REGION.$(if [[ $REGION == cn-* ]]; then say amazonaws.com.cn; else say amazonaws.com; fi)/$REPOSITORY:$TAG"
  fi
}

plan_image() {
  if [[ -z $IMAGE ]] && ! there image; then say "build and push $REPOSITORY:$TAG for $IMAGE_PLATFORM"; fi
}

apply_image() {
  local reference registry revision
  need "$CONTAINER_ENGINE" "install it, or push the image from elsewhere and pass --image"
  reference=$(image_reference)
  registry=${reference%%/*}
  revision=$(git -C "$(source_root)" rev-parse HEAD 2>/dev/null) || revision=unknown
  "$CONTAINER_ENGINE" build --platform "$IMAGE_PLATFORM" --build-arg "VERSION=$TAG" --build-arg "REVISION=$revision" \
    --file "$(source_root)/Dockerfile.envoy" --tag "$reference" "$(source_root)"
  aws ecr get-login-password | "$CONTAINER_ENGINE" login --username AWS --password-stdin "$registry"
  "$CONTAINER_ENGINE" push "$reference"

  look image ImageNotFoundException 'imageDetails[0]' ecr describe-images --repository-name "$REPOSITORY" --image-ids "imageTag=$TAG"
  there image || die "the push of $reference said yes, but the repository does not list it"
}
