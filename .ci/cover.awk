# Compares what go test -cover prints with the figures of .ci/cover.txt, for make cover.
BEGIN {
	file = ".ci/cover.txt"
	while ((getline line < file) > 0) {
		lines[++n] = line
		if (line ~ /^[a-z]/) { split(line, f, " "); want[f[1]] = f[2] }
	}
}
/coverage: [0-9.]+%/ {
	name = $2; sub(/^[^\/]*\//, "", name)
	match($0, /coverage: [0-9.]+/); got[name] = substr($0, RSTART + 10, RLENGTH - 10)
}
/^(FAIL|---|panic)/ { print; bad = 1 }
END {
	for (i = 1; i <= n; i++) {
		if (lines[i] !~ /^[a-z]/) continue
		split(lines[i], f, " "); name = f[1]; least = want[name] < 80 ? 80 : want[name]
		said = ""
		if (!(name in got)) { said = "not measured"; bad = 1 }
		else if (got[name] + 0 < least) { said = "it had " want[name] ", and 80 is the least: test what it does"; bad = 1 }
		else if (renew != "" && int(got[name]) - 1 > want[name]) lines[i] = name " " (int(got[name]) - 1)
		printf "%-22s %5s %%  %s\n", name, got[name], said
	}
	if (bad) exit 1
	if (renew != "") for (i = 1; i <= n; i++) print lines[i] > file
}
