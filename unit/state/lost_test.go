package state

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestPutLostBack: a record that lost its name gets it back if it is the only one that fits. The files that belong to
// it come back too.
func TestPutLostBack(t *testing.T) {
	unit := func(serial string) string {
		return `{"version":1,"serial":"` + serial + `","firmware":"bios","main":[{"size":1}]}`
	}
	const hash = `{"version":1,"hash":"$2b$10$abcdefghijklmnopqrstuv"}`
	const key = `{"version":1,"seed":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`
	for name, c := range map[string]struct {
		files map[string]string // links start with ->
		back  []string
	}{
		"nothing":            {nil, nil},
		"the record":         {map[string]string{"lost+found/#12": unit("S"), "lost+found/#13": "log"}, []string{UnitFile}},
		"all, in their dir":  {map[string]string{"lost+found/#12/unit.json": unit("S"), "lost+found/#12/x": hash, "lost+found/#14": key}, []string{KeyFile, HashFile, UnitFile}},
		"another unit's":     {map[string]string{"lost+found/#12": unit("T"), "lost+found/#13": hash}, nil},
		"and another unit's": {map[string]string{"lost+found/#12": unit("S"), "lost+found/#13": unit("T")}, []string{UnitFile}},
		"two":                {map[string]string{"lost+found/#12": unit("S"), "lost+found/#13": unit("S"), "lost+found/#14": unit("S")}, nil},
		"two hashes":         {map[string]string{"lost+found/#12": unit("S"), "lost+found/#13": hash, "lost+found/#14": hash}, []string{UnitFile}},
		"a hash is there":    {map[string]string{"lost+found/#12": unit("S"), "lost+found/#13": hash, HashFile: "own"}, []string{UnitFile}},
		"a record is there":  {map[string]string{"lost+found/#12": unit("S"), UnitFile: "damaged"}, nil},
		"a link":             {map[string]string{"lost+found/#12": "->../elsewhere", "elsewhere": unit("S")}, nil},
		"too deep":           {map[string]string{"lost+found/#12/a/b": unit("S")}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			v := Open(t.TempDir())
			for file, text := range c.files {
				path := v.Path(file)
				err := os.MkdirAll(filepath.Dir(path), 0o700)
				if len(text) > 2 && text[:2] == "->" {
					err = errors.Join(err, os.Symlink(text[2:], path))
				} else {
					err = errors.Join(err, os.WriteFile(path, []byte(text), 0o600))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			fits := func(u Unit) bool { return u.Serial == "S" }
			has, err := v.HasLostUnit(fits)
			if want := slices.Contains(c.back, UnitFile); err != nil || has != want && name != "a record is there" {
				t.Errorf("a record is lost: %t, %v", has, err)
			}
			names, err := v.PutLostBack(fits)
			if err != nil || !slices.Equal(names, c.back) {
				t.Fatalf("put back %q, %v; want %q", names, err, c.back)
			}
			all := slices.Sorted(maps.Values(c.files))
			for _, n := range c.back {
				b, err := os.ReadFile(v.Path(n))
				if _, known := slices.BinarySearch(all, string(b)); err != nil || !known {
					t.Errorf("%s has %q, %v", n, b, err)
				}
			}
			if u, err := v.ReadUnit(); len(c.back) > 0 && (err != nil || u.Serial != "S") || len(c.back) == 0 && err == nil {
				t.Errorf("the record is %+v, %v", u, err)
			}
			if names, err := v.PutLostBack(fits); len(names) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the second time: %q, %v", names, err)
			}
		})
	}
}
