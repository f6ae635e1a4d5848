package state

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestManifests: the newest manifest of each product is remembered. Only an older one of the same product is refused.
func TestManifests(t *testing.T) {
	v := Open(t.TempDir())
	m, err := v.ReadManifests()
	if err != nil || m.Check("FOX", "1") != nil || m.Check("FOX", "first") != nil {
		t.Fatalf("a unit that used none: %+v, %v", m, err)
	}
	for _, s := range []string{"7", "12", "9", "thirteen", "-1"} {
		m = m.Used("FOX", s)
	}
	m = m.Used("OWL 2", "3")
	if err := v.WriteManifests(m); err != nil {
		t.Fatal(err)
	}
	if m, err = v.ReadManifests(); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ product, serial, want string }{
		{"FOX", "12", ""}, {"FOX", "13", ""}, {"FOX", "18446744073709551615", ""}, {"OWL 2", "3", ""}, {"HEN", "1", ""}, {"HEN", "x", ""},
		{"FOX", "11", "sign the old content with a higher one"}, {"FOX", "9", "used 12"}, {"FOX", "0", "used 12"}, {"FOX", "x", "whole number"}, {"FOX", "", "whole number"},
		{"OWL 2", "2", "used 3"},
	} {
		err := m.Check(tc.product, tc.serial)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s %s: got %v, want %q", tc.product, tc.serial, err, tc.want)
		}
	}
}

// TestManifestsBounds: hostile content is refused, and what is written can be read.
func TestManifestsBounds(t *testing.T) {
	v := Open(t.TempDir())
	var m Manifests
	for i := range 2 * maxProducts {
		m = m.Used(fmt.Sprint("P", i), "1")
	}
	m = m.Used("", "1").Used("a\x1b[2J", "1").Used(strings.Repeat("x", 200), "1")
	if err := v.WriteManifests(m); err != nil {
		t.Fatal(err)
	}
	if m, err := v.ReadManifests(); err != nil || len(m.Newest) != maxProducts {
		t.Errorf("%d products, %v", len(m.Newest), err)
	}
	for text, want := range map[string]error{
		`{"version":1,"newest":{"":1}}`: ErrDamaged, `{"version":1,"newest":{"a":-1}}`: ErrDamaged, `{"version":1,"newest":{"\u001b":1}}`: ErrDamaged,
		`{"version":2,"newest":{"a":1}}`: ErrNewer, `[]`: ErrDamaged, ``: ErrDamaged,
	} {
		if err := os.WriteFile(v.Path(ManifestsFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if m, err := v.ReadManifests(); !errors.Is(err, want) || len(m.Newest) > 0 {
			t.Errorf("%q: %+v, %v", text, m, err)
		}
	}
}
