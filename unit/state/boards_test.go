package state

import (
	"fmt"
	"os"
	"testing"
)

// TestBoards: mainboards are known once each, the oldest one is forgotten, and a damaged file is one that a person replaces.
func TestBoards(t *testing.T) {
	v := Open(t.TempDir())
	if err := os.MkdirAll(v.Path("state"), 0o700); err != nil {
		t.Fatal(err)
	}
	if b, err := ReadBoards(v); err != nil || len(b.Serials) > 0 {
		t.Errorf("without a file: %q, %v", b.Serials, err)
	}
	for i := range maxBoards + 1 {
		for range 2 {
			if err := AddBoard(v, fmt.Sprint("SN-", i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	b, err := ReadBoards(v)
	if err != nil || len(b.Serials) != maxBoards || b.Serials[0] != "SN-1" || b.Serials[maxBoards-1] != "SN-16" {
		t.Errorf("%q, %v", b.Serials, err)
	}
	for _, bad := range []string{"", "a\nb"} {
		if AddBoard(v, bad) == nil {
			t.Errorf("%q is taken for a serial number", bad)
		}
	}
	for _, text := range []string{"{", `{"version":1,"serials":[""]}`} {
		if err := os.WriteFile(v.Path(BoardsFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadBoards(v); err == nil {
			t.Errorf("%s is taken for mainboards", text)
		}
		if err := AddBoard(v, "SN-9"); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	newer := []byte(fmt.Sprintf(`{"version":%d,"serials":["SN-1"]}`, Version+1))
	if err := os.WriteFile(v.Path(BoardsFile), newer, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := AddBoard(v, "SN-9"); err == nil {
		t.Error("a file of a newer release is written anew")
	}
}
