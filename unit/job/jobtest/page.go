package jobtest

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// ResetPage returns what the table of docs/reset.md says of a tier, by its flag: whether that keeps the thing that a row is of. It is for
// the tests of a job, which run in the directory of their package.
func ResetPage(t *testing.T, flag string) (keeps func(row string) bool) {
	t.Helper()
	b, err := os.ReadFile("../../../docs/reset.md")
	if err != nil {
		t.Fatal(err)
	}
	column := -1
	cells := map[string]string{}
	for _, line := range strings.Split(string(b), "\n") {
		row := strings.Split(line, "|")
		for i := range row {
			row[i] = strings.TrimSpace(row[i])
		}
		if column < 0 {
			column = slices.Index(row, "`"+flag+"`")
		} else if len(row) > column {
			cells[row[1]] = row[column]
		} else {
			break
		}
	}
	return func(row string) bool {
		t.Helper()
		word, _, _ := strings.Cut(cells[row], ",")
		switch word {
		case "stay", "stays", "used":
			return true
		case "gone", "new", "new and empty", "erased":
			return false
		}
		t.Errorf("docs/reset.md says %q of %s, %s", cells[row], flag, row)
		return false
	}
}
