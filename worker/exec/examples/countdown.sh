#!/usr/bin/env bash
# A worker for docs/exec.md in bash: counts down, and can be cancelled.

# say TYPE MEMBERS: one message.
say() { printf '{"type":"%s",%s}\n' "$1" "$2" >&"$KTRDR_EXEC_OUT"; }

# number NAME LINE: the member of this name.
number() { sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p" <<<"$2"; }

say describe '"protocol":1,"worker_type":"countdown_sh","description":"Counts down.","request_schema":{"type":"object","properties":{"steps":{"type":"integer","minimum":1,"maximum":1000}},"required":["steps"],"additionalProperties":false}'

while read -r -u "$KTRDR_EXEC_IN" line; do
    [[ $line == '{"type":"start",'* ]] || continue
    run=$(number run "$line")
    steps=$(number steps "$line")
    for ((done = 0; done < steps; done++)); do
        # Any line that comes during a run is a cancel. The waiting for it is the pause between two steps.
        if read -r -t 0.1 -u "$KTRDR_EXEC_IN" line; then
            say cancelled "\"run\":$run"
            continue 2
        fi
        say progress "\"run\":$run,\"percentage\":$((100 * done / steps)),\"step\":\"$((steps - done)) to go\""
    done
    say completed "\"run\":$run,\"result\":{\"steps\":$steps}"
done
