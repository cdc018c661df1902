# How far a service is on the way to revision $revision: a verdict (stable, failed, under way), a tab, and a line for people.

(.deployments | map(select(.status == "PRIMARY")) | .[0]) as $primary
| (.deployments | map(select(.status != "PRIMARY") | .runningCount) | add // 0) as $old
| (.events // [] | .[0].message // "" | sub("^\\(service [^)]*\\) "; "")) as $event
| (if .status != "ACTIVE" or $primary == null then ["failed", "the service is \(.status)"]
   elif $primary.taskDefinition != $revision then ["failed", "ECS went back to \($primary.taskDefinition | split("/")[-1]) by itself"]
   elif $primary.rolloutState == "FAILED" then ["failed", "failed: \($primary.rolloutStateReason)"]
   elif (.deployments | length) == 1 and $primary.runningCount == .desiredCount and $primary.pendingCount == 0
        and ($primary.rolloutState // "COMPLETED") == "COMPLETED" then ["stable", "stable"]
   else ["under way", "under way"] end) as [$verdict, $word]
| "\($verdict)\t\($word): \($primary.runningCount // 0) of \(.desiredCount) running, \($primary.pendingCount // 0) starting, \($old) of earlier revisions"
  + (if ($primary.failedTasks // 0) > 0 then ", \($primary.failedTasks) failed" else "" end)
  + (if $event == "" then "" else "; \($event)" end)
