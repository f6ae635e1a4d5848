package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gprovision/model/erasure"
	"gprovision/model/release"
)

// keeps returns the files that are read, changed and rewritten, with the functions that do so.
func keeps(v *Volume) map[string]struct{ write, change func() error } {
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	unit := sampleUnit()
	array := func(n int) *Array {
		return &Array{Level: 1, UUID: fmt.Sprintf("aaaaaaaa-bbbb-4ccc-8ddd-00000000000%d", n), FSUUID: fmt.Sprintf("aaaaaaaa-bbbb-4ccc-8ddd-00000000001%d", n)}
	}
	unit.Main = append(unit.Main, unit.Main[0])
	unit.Array, unit.DataArray = array(1), array(2)
	request, _ := NewRequest(KindRestore, "", "test", at)
	const image = "WIDGET.LNX.SHINY.2026-11-22.0001"
	return map[string]struct{ write, change func() error }{
		UnitFile: {func() error { return v.WriteUnit(unit) }, func() error {
			u, err := v.ReadUnit()
			u.Original = ""
			return errors.Join(err, v.WriteUnit(u))
		}},
		RequestFile: {func() error { return v.WriteRequest(request) }, func() error {
			r, err := v.ReadRequest()
			r.Image = Original
			return errors.Join(err, v.WriteRequest(r))
		}},
		EraseFile: {func() error { return WriteErase(v, Erase{ID: request.ID, Started: at}) }, func() error {
			e, err := ReadErase(v)
			e.Outcome, e.Resolved = erasure.Proved, true
			return errors.Join(err, WriteErase(v, e))
		}},
		CountsFile: {func() error { return v.WriteCounts(Counts{BootAttempts: 1, LastGood: at}) }, func() error {
			c, err := v.ReadCounts()
			return errors.Join(err, v.WriteCounts(c.Attempted(true).Repaired()))
		}},
		ShellFile: {func() error { return v.WriteTries(1) }, func() error { return v.WriteTries(2) }},
		MediumFile: {func() error { return v.WriteMedium(Medium{ID: request.ID, Image: image + ".upd"}) }, func() error {
			m, err := v.ReadMedium()
			m.Removed = true
			return errors.Join(err, v.WriteMedium(m))
		}},
		BoardsFile: {func() error { return AddBoard(v, "SN-0009") }, func() error { return AddBoard(v, "SN-0010") }},
		PendingFile: {func() error { return v.WritePending(Pending{RecoveryArtifact: true}) }, func() error {
			p, err := v.ReadPending()
			p.RecoveryArtifact = false // no work left that this program knows of
			return errors.Join(err, v.WritePending(p))
		}},
		ManifestsFile: {func() error { return v.WriteManifests(Manifests{Newest: map[string]uint64{"FOX": 3}}) }, func() error {
			m, err := v.ReadManifests()
			return errors.Join(err, v.WriteManifests(m.Used("FOX", "4")))
		}},
		RestoreDataFile: {func() error { return v.WriteRestoreData(RestoreData{Preserve: true, BootArgs: "quiet"}) }, func() error {
			d, err := v.ReadRestoreData()
			d.BootArgs = ""
			return errors.Join(err, v.WriteRestoreData(d))
		}},
		HistoryFile: {func() error {
			var h release.History
			h.Imaging(image, true, at)
			b, err := h.Marshal()
			return errors.Join(err, v.WriteHistory(b))
		}, func() error {
			b, err := v.ReadHistory()
			if err != nil {
				return err
			}
			h, err := release.ParseHistory(b)
			h.Imaging("WIDGET.LNX.SHINY.2026-11-23.0002", true, at)
			h.Boot(image, true, 0, at, "")
			if b, e := h.Marshal(); e == nil && err == nil {
				err = v.WriteHistory(b)
			}
			return err
		}},
	}
}

// anew are the files that are always made from scratch, so that there is nothing to keep.
var anew = map[string]bool{KeyFile: true, HashFile: true, BootFile: true, PolicyFile: true, NetworkFile: true, BadRequestFile: true,
	CertificateFile: true}

// TestUnknownKeysStay writes keys of a newer program into every object of every file. After this program has changed
// the file, the keys must still be there, with their values to the last digit. What the program knows must be as it
// wrote it.
func TestUnknownKeysStay(t *testing.T) {
	v := Open(t.TempDir())
	for name, file := range keeps(v) {
		t.Run(name, func(t *testing.T) {
			if err := file.write(); err != nil {
				t.Fatal(err)
			}
			path := v.Path(name)
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			want := 0
			newer := grow(t, bytes.TrimSpace(before), &want)
			if name == CountsFile { // it has a fixed size
				newer = append(newer, bytes.Repeat([]byte{' '}, CountsSize-len(newer))...)
			}
			if err := os.WriteFile(path, newer, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := file.change(); err != nil {
				t.Fatal(err)
			}
			after, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Equal(after, newer) {
				t.Error("nothing was changed")
			}
			if got := bytes.Count(bytes.ReplaceAll(after, []byte(" "), nil), []byte(grownKey)); got != want || want == 0 {
				t.Errorf("%d of %d unknown keys are there:\n%s", got, want, after)
			}
			if name == CountsFile && len(after) != CountsSize {
				t.Errorf("the file has %d bytes", len(after))
			}
		})
	}
}

const grownKey = `"newer":12345678901234567890.10`

// grow adds a key to each object in b.
func grow(t *testing.T, b []byte, added *int) []byte {
	t.Helper()
	var object map[string]json.RawMessage
	if json.Unmarshal(b, &object) == nil {
		for k, v := range object {
			if k != "newest" { // its keys are product names, not part of the format
				object[k] = grow(t, v, added)
			}
		}
		object["newer"] = json.RawMessage("12345678901234567890.10")
		*added++
		out, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	var list []json.RawMessage
	if json.Unmarshal(b, &list) == nil {
		for i := range list {
			list[i] = grow(t, list[i], added)
		}
		out, err := json.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	return b
}

// TestEveryFileIsKept: each file that this package names is covered by the test above, or always made from scratch.
func TestEveryFileIsKept(t *testing.T) {
	known := keeps(Open(t.TempDir()))
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, source := range sources {
		f, err := parser.ParseFile(token.NewFileSet(), source, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, s := range g.Specs {
				s := s.(*ast.ValueSpec)
				for i, n := range s.Names {
					if !strings.HasSuffix(n.Name, "File") || i >= len(s.Values) || strings.HasSuffix(source, "_test.go") {
						continue
					}
					lit, ok := s.Values[i].(*ast.BasicLit)
					if !ok {
						continue
					}
					name := strings.Trim(lit.Value, `"`)
					if name == roomFile {
						continue
					}
					seen++
					if _, ok := known[name]; !ok && !anew[name] {
						t.Errorf("%s (%s): does rewriting it keep what is not known?", n.Name, name)
					}
				}
			}
		}
	}
	if seen < 12 {
		t.Errorf("only %d files were seen", seen)
	}
}

// TestUnknownKeysHaveLimits: a new document has no unknown keys. They never make a file too large to read. A file of
// a newer format is not overwritten.
func TestUnknownKeysHaveLimits(t *testing.T) {
	v := Open(t.TempDir())
	if err := os.MkdirAll(v.Path(Dir), 0o700); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	r, err := NewRequest(KindRestore, "", "test", at)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(v.Path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(RequestFile, `{"version":1,"id":"`+r.ID+`","kind":"restore","time":"2026-11-22T10:00:00Z","eraseToo":true}`)
	if err := v.WriteRequest(r); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(v.Path(RequestFile)); err != nil || bytes.Contains(b, []byte("eraseToo")) {
		t.Errorf("a new request has a key of the old one: %s, %v", b, err)
	}

	write(MediumFile, `{"version":1,"id":"`+r.ID+`","image":"a.upd","newer":["`+strings.Repeat("x", maxSmall-200)+`",1,2,3,4,5,6,7,8,9]}`)
	m, err := v.ReadMedium()
	if err != nil {
		t.Fatal(err)
	}
	m.Image = strings.Repeat("a", 190) + ".upd"
	if err := v.WriteMedium(m); err != nil {
		t.Fatal(err)
	}
	if got, err := v.ReadMedium(); err != nil || got.Image != m.Image {
		t.Errorf("a file that is full of what is not known: %+v, %v", got, err)
	}

	write(CountsFile, `{"version":1,"newer":"`+strings.Repeat("x", 400)+`"}`)
	c, err := v.ReadCounts()
	if err == nil {
		err = v.WriteCounts(c.Attempted(false))
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, err := v.ReadCounts(); err != nil || got.BootAttempts != 1 {
		t.Errorf("counts in a file that is full of what is not known: %+v, %v", got, err)
	}

	const newer = `{"version":99,"failed":"three"}`
	write(ShellFile, newer)
	if err := v.WriteTries(1); !errors.Is(err, ErrNewer) {
		t.Errorf("writing over a newer file: %v", err)
	}
	if b, err := os.ReadFile(v.Path(ShellFile)); err != nil || string(b) != newer {
		t.Errorf("the newer file is %s, %v", b, err)
	}
	if _, err := release.ParseHistory([]byte(`{"version":99,"ImageResults":{}}`)); !errors.Is(err, release.ErrNewerHistory) {
		t.Errorf("a newer history: %v", err)
	}
	if _, err := os.Stat(v.Path(HistoryFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
