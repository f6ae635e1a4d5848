package state

import (
	"errors"
	"os"
	"testing"
)

func TestPending(t *testing.T) {
	v := Open(t.TempDir())
	if p, err := v.ReadPending(); err != nil || p != (Pending{}) {
		t.Errorf("a new volume: %+v, %v", p, err)
	}
	if err := v.WritePending(Pending{RecoveryArtifact: true}); err != nil {
		t.Fatal(err)
	}
	if p, err := v.ReadPending(); err != nil || !p.RecoveryArtifact {
		t.Errorf("got %+v, %v", p, err)
	}
	for range 2 {
		if err := v.WritePending(Pending{Version: Version}); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(v.Path(PendingFile)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("nothing to do, and the file is there: %v", err)
		}
	}
	for text, want := range map[string]error{`{"version":99}`: ErrNewer, `nonsense`: ErrDamaged} {
		if err := os.WriteFile(v.Path(PendingFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := v.ReadPending(); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", text, err, want)
		}
	}
}
