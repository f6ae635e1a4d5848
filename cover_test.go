package gprovision

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCoverIsWhole: make cover measures each package whose code decides over disks and says of none that less than 80 percent would do.
func TestCoverIsWhole(t *testing.T) {
	list, err := os.ReadFile(".ci/cover.txt")
	if err != nil {
		t.Fatal(err)
	}
	figures := map[string]int{}
	for line := range strings.Lines(string(list)) {
		var name string
		var percent int
		if strings.HasPrefix(line, "#") {
			continue
		}
		if n, err := fmt.Sscanf(line, "%s %d\n", &name, &percent); n != 2 || err != nil {
			t.Errorf("%q: %v", line, err)
		}
		figures[name] = percent
		if percent < 80 || percent > 100 {
			t.Errorf("%s: %d percent", name, percent)
		}
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	}
	jobs, err := filepath.Glob("unit/job/*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(jobs, "unit/job/job.go", "unit/decide/decide.go", "unit/survey/survey.go", "unit/image/judge.go",
		"unit/volume/volume.go") {
		if name := filepath.Dir(file); !strings.HasSuffix(name, "test") && figures[name] == 0 {
			t.Errorf("%s is not in .ci/cover.txt", name)
		}
	}
}
