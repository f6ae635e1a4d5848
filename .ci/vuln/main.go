// Command vuln looks for known holes in what this module is built of: govulncheck, at the version that go.mod here pins, with the
// database of the Go project as the module golang.org/x/vulndb brings it. So it needs nothing but a module proxy, and with a pinned
// database the same commit gives the same answer for ever. With -newest the newest database is asked.
//
// The database's own program builds an index with a hundred modules behind it; the index that govulncheck reads is a list, made here.
// It is kept in the user's cache, by the version of the database.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The pinned database: `go mod download -json golang.org/x/vulndb@latest` says both.
const (
	database = "golang.org/x/vulndb"
	version  = "v0.0.0-20261105234957-e22db6528018"
	sum      = "h1:mfngRv0Yoh0VApsXKEN82CjD99kl7mtparN3bs3JnqI="
)

func main() {
	newest := flag.Bool("newest", false, "ask the newest database in place of the pinned one")
	root := flag.String("root", ".", "the module to look at")
	flag.Parse()
	if err := run(*newest, *root); err != nil {
		fmt.Fprintln(os.Stderr, "vuln:", err)
		os.Exit(1)
	}
}

func run(newest bool, root string) error {
	want := version
	if newest {
		want = "latest"
	}
	var out bytes.Buffer
	get := exec.Command("go", "mod", "download", "-json", database+"@"+want)
	get.Stdout, get.Stderr = &out, os.Stderr
	if err := get.Run(); err != nil {
		return fmt.Errorf("download the database: %w\n%s", err, out.String())
	}
	var m struct{ Dir, Version, Sum string }
	if err := json.Unmarshal(out.Bytes(), &m); err != nil {
		return fmt.Errorf("download the database: %w", err)
	}
	if !newest && m.Sum != sum {
		return fmt.Errorf("the database %s has the sum %s, want %s", m.Version, m.Sum, sum)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	dir := filepath.Join(cache, "gprovision", "vulndb", m.Version)
	if _, err := os.Stat(filepath.Join(dir, "ID", ".")); err != nil {
		if err := build(filepath.Join(m.Dir, "data", "osv"), dir); err != nil {
			return fmt.Errorf("build the index of the database: %w", err)
		}
	}
	fmt.Printf("govulncheck, database %s\n", m.Version)
	tool, err := exec.Command("go", "tool", "-n", "govulncheck").Output() // builds it
	if err != nil {
		return fmt.Errorf("build govulncheck: %w", err)
	}
	check := exec.Command(strings.TrimSpace(string(tool)), "-db", "file://"+filepath.ToSlash(dir), "./...")
	check.Dir, check.Stdout, check.Stderr = root, os.Stdout, os.Stderr
	return check.Run()
}

// build makes a database directory (https://go.dev/doc/security/vuln/database) out of a directory of reports, which stay where they are.
func build(reports, dir string) error {
	entries, err := os.ReadDir(reports)
	if err != nil {
		return err
	}
	type vuln struct {
		ID       string    `json:"id"`
		Modified time.Time `json:"modified"`
	}
	type module struct {
		Path  string `json:"path"`
		Vulns []vuln `json:"vulns"`
	}
	modules := map[string]map[string]vuln{}
	var latest time.Time
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".json" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(reports, e.Name()))
		if err != nil {
			return err
		}
		var r struct {
			vuln
			Affected []struct {
				Package struct{ Name string }
			}
		}
		if err := json.Unmarshal(b, &r); err != nil {
			return fmt.Errorf("%s: %w", e.Name(), err)
		}
		if r.ID+".json" != e.Name() {
			return fmt.Errorf("%s is report %q", e.Name(), r.ID)
		}
		if r.Modified.After(latest) {
			latest = r.Modified
		}
		for _, a := range r.Affected {
			if modules[a.Package.Name] == nil {
				modules[a.Package.Name] = map[string]vuln{}
			}
			modules[a.Package.Name][r.ID] = r.vuln
		}
	}
	if len(modules) == 0 {
		return errors.New("there are no reports in " + reports)
	}
	list := []module{}
	for _, path := range slices.Sorted(maps.Keys(modules)) {
		m := module{Path: path}
		for _, id := range slices.Sorted(maps.Keys(modules[path])) {
			m.Vulns = append(m.Vulns, modules[path][id])
		}
		list = append(list, m)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".new")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := errors.Join(os.Mkdir(filepath.Join(tmp, "index"), 0o755), os.Symlink(reports, filepath.Join(tmp, "ID"))); err != nil {
		return err
	}
	for name, v := range map[string]any{"modules.json": list, "db.json": map[string]time.Time{"modified": latest}} {
		b, err := json.Marshal(v)
		if err == nil {
			err = os.WriteFile(filepath.Join(tmp, "index", name), b, 0o644)
		}
		if err != nil {
			return err
		}
	}
	if err := os.RemoveAll(dir); err != nil { // one whose reports are gone from the module cache
		return err
	}
	return os.Rename(tmp, dir)
}
