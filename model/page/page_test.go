package page

import (
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
)

func TestPage(t *testing.T) {
	docs := fstest.MapFS{"a.md": {Data: []byte("# A\n\nIt takes 5\nminutes.\n\n## Keys\n\n| key | means |\n|---|---|\n| `a`, `b` | 1 |\n\n## More\n\n| c | 2 |\n")}}
	if err := Says(docs, "a.md", "takes 5 minutes"); err != nil {
		t.Error(err)
	}
	if err := Says(docs, "a.md", "takes 6 minutes", "minutes."); err == nil || !strings.HasSuffix(err.Error(), ": takes 6 minutes") {
		t.Error(err)
	}
	got, err := Rows(docs, "a.md", "## Keys")
	if err != nil || !reflect.DeepEqual(got, [][]string{{"key", "means"}, {"`a`, `b`", "1"}}) {
		t.Errorf("%q, %v", got, err)
	}
	if got := Codes(got[1][0]); !reflect.DeepEqual(got, []string{"a", "b"}) {
		t.Errorf("%q", got)
	}
	for _, heading := range []string{"## Nothing", "It takes"} {
		if got, err := Rows(docs, "a.md", heading); heading == "## Nothing" && err == nil || heading == "It takes" && err == nil {
			t.Errorf("%s: %q", heading, got)
		}
	}
}
