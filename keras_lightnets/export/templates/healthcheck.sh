# By bash: the official image has no program that speaks HTTP. The status code does not tell
# whether a version is available, the state does; the quotes keep the error code UNAVAILABLE
# of a version that could not be loaded from counting.
names=$(sed 's/#.*//' /models/models.config | grep -Eo '\bname: *"[^"]*"' | cut -d'"' -f2)
for name in $names; do
  exec 3<>/dev/tcp/127.0.0.1/{rest_port} &&
  printf 'GET /v1/models/%s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$name" >&3 &&
  grep -q '"AVAILABLE"' <&3 || exit 1
done
test -n "$names"
