package shell

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"gprovision/model/challenge"
	"gprovision/model/page"
	"gprovision/unit/keytest"
)

// TestPage holds docs/shell.md against the code: the commands, and the numbers.
func TestPage(t *testing.T) {
	docs := os.DirFS("../../../docs")
	rows, err := page.Rows(docs, "shell.md", "## Commands")
	if err != nil {
		t.Fatal(err)
	}
	onPage := []string{"help", "quit"} // told of in the text, and another word for exit
	for _, r := range rows[1:] {
		for _, c := range page.Codes(r[0]) {
			name, usage, _ := strings.Cut(c, " ")
			onPage = append(onPage, name)
			for _, have := range commands() {
				if have.name == name && have.usage != usage {
					t.Errorf("the page has %q, the command %q", c, have.usage)
				}
			}
		}
	}
	have := []string{"facts", "unit", "images", "log"} // init's own, see Inspection
	for _, c := range commands() {
		have = append(have, c.name)
	}
	for name := range exits() {
		have = append(have, name)
	}
	slices.Sort(onPage)
	slices.Sort(have)
	if !slices.Equal(onPage, have) {
		t.Errorf("the page has %v,\nthe shell %v", onPage, have)
	}

	if delay(0) != 0 || delay(4) != 2*delay(3) || delay(MaxTries) != time.Minute || MaxTries != 10 || maxShown != 1<<20 {
		t.Errorf("a try waits %s, %s, at most %s; %d tries; %d bytes are shown", delay(0), delay(4), delay(MaxTries), MaxTries, maxShown)
	}
	if err := page.Says(docs, "shell.md", "Each wrong one doubles the wait, up to a minute; after ten in a row no password is taken", "shows at most 1 MiB of each", "13 groups of 8 letters and digits"); err != nil {
		t.Error(err)
	}
	var files []string
	for _, name := range secrets() {
		files = append(files, "`"+name+"`")
	}
	if err := page.Says(docs, "shell.md", "Files that hold secrets ("+strings.Join(files, ", ")+") are not shown or copied"); err != nil {
		t.Error(err)
	}
	key := keytest.New(t)
	answer, err := challenge.New("SN-0001").Answer(key)
	if err != nil {
		t.Fatal(err)
	}
	groups := strings.Fields(answer)
	if len(groups) != 13 || slices.ContainsFunc(groups, func(g string) bool { return len(g) != 8 }) {
		t.Errorf("the answer is %q", answer)
	}
}
