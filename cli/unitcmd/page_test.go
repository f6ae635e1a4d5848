package unitcmd

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"gprovision/model/page"
)

// TestPage holds the verbs of docs/running-system.md against those that there are, and what it says of their rights.
func TestPage(t *testing.T) {
	docs := os.DirFS("../../docs")
	rows, err := page.Rows(docs, "running-system.md", "| verb | what it does |")
	if err != nil {
		t.Fatal(err)
	}
	var said, have []string
	for _, r := range rows {
		for _, c := range page.Codes(r[0]) {
			verb, _, _ := strings.Cut(c, " ")
			said = append(said, verb)
		}
	}
	k, err := kong.New(&Commands{}, kong.Vars{"version": ""})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range k.Model.Children {
		have = append(have, n.Name)
	}
	slices.Sort(have)
	slices.Sort(said)
	if said = slices.Compact(said); !slices.Equal(said, have) {
		t.Errorf("the page has %v, the program %v", said, have)
	}

	if err := page.Says(docs, "running-system.md", "It needs root's rights for all but `status`, `systemd-unit` and `install`."); err != nil {
		t.Error(err)
	}
	for verb, args := range map[string][]string{"status": nil, "boot-ok": nil, "restore": nil, "reset": {"--erase"}, "erase-certificate": nil, "fetch": {"x.upd"}, "save-network": nil, "support-bundle": nil, "capture": nil,
		"systemd-unit": nil, "install": {"--root", t.TempDir()}} {
		f := newFake(t)
		f.uid = 1000
		f.run(append([]string{verb}, args...)...)
		refused := strings.Contains(f.err.String(), "only root may do this")
		if want := !slices.Contains([]string{"status", "systemd-unit", "install"}, verb); refused != want {
			t.Errorf("%s asks for root: %t\n%s", verb, refused, f.err.String())
		}
	}
}
