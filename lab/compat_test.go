package lab_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"gprovision/factory/api"
	"gprovision/factory/login"
	"gprovision/factory/store"
	"gprovision/factory/vault"
	"gprovision/lab"
	"gprovision/model/layout"
	"gprovision/model/record"
	"gprovision/model/release"
	"gprovision/unit/state"
)

// released is a line of the table of releases in docs/compatibility.md.
type released struct{ version, commit string }

// repository is the root of the sources.
const repository = ".."

// releases returns the whole table, the oldest release first.
func releases(t *testing.T) []released {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(repository, "docs", "compatibility.md"))
	if err != nil {
		t.Fatal(err)
	}
	var out []released
	for _, m := range regexp.MustCompile(`(?m)^\| (\d+\.\d+\.\d+) \| ([0-9a-f]{40}) \|`).FindAllStringSubmatch(string(b), -1) {
		out = append(out, released{m[1], m[2]})
	}
	if len(out) == 0 || out[0].version != "0.1.0" {
		t.Fatalf("docs/compatibility.md lists the releases %v, want 0.1.0 first", out)
	}
	return out
}

// ends are the first and the last of the releases.
func ends(all []released) []released {
	if len(all) < 2 {
		return all
	}
	return []released{all[0], all[len(all)-1]}
}

// git asks the repository that the tests run in, and only ever reads it. It works in a clone that belongs to somebody else.
func git(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-c", "safe.directory=*", "-C", repository}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_OPTIONAL_LOCKS=0")
	out, err := cmd.Output()
	if e := (*exec.ExitError)(nil); errors.As(err, &e) {
		err = fmt.Errorf("git %s: %w: %s", args[0], err, bytes.TrimSpace(e.Stderr))
	}
	return out, err
}

// needHistory skips where the repository does not have the commit of a release.
func needHistory(t *testing.T, r released) {
	t.Helper()
	if testing.Short() {
		t.Skip("building an old version takes long: not with -short")
	}
	if _, err := git(t.Context(), "cat-file", "-e", r.commit+"^{commit}"); err != nil {
		why := fmt.Sprintf("the commit of %s is not in this repository: %v", r.version, err)
		if out, _ := git(t.Context(), "rev-parse", "--is-shallow-repository"); strings.TrimSpace(string(out)) == "true" {
			why += ". It is a shallow clone: 'git fetch --unshallow' gets the whole history (docs/compatibility.md)"
		}
		skip(t, why)
	}
}

// old is what was built of a release: its commands, those of lab/testdata/corpus, and what these made.
type old struct {
	released
	dir string
}

func (o old) program(name string) string { return filepath.Join(o.dir, "bin", name) }

// corpus is where the program lies that makes and reads what a release keeps, by the release's own packages.
func (r released) corpus() string { return filepath.Join("testdata", "corpus", r.version, "main.go") }

// programs returns the release, built. It comes from the cache if it was built before.
func (r released) programs(t *testing.T) old {
	t.Helper()
	needHistory(t, r)
	program, err := os.ReadFile(r.corpus())
	if err != nil {
		t.Fatalf("each release brings a program that reads and writes its files: %v", err)
	}
	cache, err := lab.OpenCache("")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := cache.Get(t.Context(), "release-"+r.version, lab.Key("release 1", r.commit, string(program)), func(path string) error {
		src := filepath.Join(path, "src")
		if err := errors.Join(os.MkdirAll(filepath.Join(src, "cmd", "corpus"), 0o755), os.Mkdir(filepath.Join(path, "bin"), 0o755)); err != nil {
			return err
		}
		tar, err := git(t.Context(), "archive", "--format=tar", r.commit)
		if err != nil {
			return err
		}
		unpack := exec.CommandContext(t.Context(), "tar", "-x", "-C", src)
		unpack.Stdin = bytes.NewReader(tar)
		if out, err := unpack.CombinedOutput(); err != nil {
			return fmt.Errorf("unpack %s: %w: %s", r.version, err, out)
		}
		if err := os.WriteFile(filepath.Join(src, "cmd", "corpus", "main.go"), program, 0o644); err != nil {
			return err
		}
		for _, args := range [][]string{{"../bin/", "./cmd/..."}, {"../bin/tiny", "./lab/tiny"}} {
			build := exec.CommandContext(t.Context(), "go", append([]string{"build", "-trimpath", "-ldflags", "-s -w", "-o"}, args...)...)
			build.Dir, build.Env = src, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWORK=off")
			if out, err := build.CombinedOutput(); err != nil {
				return fmt.Errorf("build %s: %w: %s", r.version, err, out)
			}
		}
		for _, args := range [][]string{{"write", filepath.Join(path, "state")}, {"record", filepath.Join(path, "server")}} {
			if out, err := exec.CommandContext(t.Context(), filepath.Join(path, "bin", "corpus"), args...).CombinedOutput(); err != nil {
				return fmt.Errorf("corpus of %s: %w: %s", r.version, err, out)
			}
		}
		return os.RemoveAll(src)
	})
	if err != nil {
		t.Fatal(err)
	}
	return old{r, dir}
}

// copied copies a directory of the cache, so that nothing there is changed.
func copied(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// eachEnd runs a test for the first and the last release.
func eachEnd(t *testing.T, test func(*testing.T, released)) {
	for _, r := range ends(releases(t)) {
		t.Run(r.version, func(t *testing.T) { test(t, r) })
	}
}

// Files of a unit that are not on its recovery volume, as lab/testdata/corpus names them.
const (
	corpusMark = "mark"
	corpusBoot = "boot.json"
)

// readState reads all files of a unit's state below dir.
func readState(dir string) (map[string]any, error) {
	out := map[string]any{}
	var all error
	note := func(name string, value any, err error) {
		out[name] = value
		if err != nil {
			all = errors.Join(all, fmt.Errorf("%s: %w", name, err))
		}
	}
	v := state.Open(dir)
	unit, err := v.ReadUnit()
	note(state.UnitFile, unit, err)
	request, err := v.ReadRequest()
	note(state.RequestFile, request, err)
	counts, err := v.ReadCounts()
	note(state.CountsFile, counts, err)
	tries, err := v.ReadTries()
	note(state.ShellFile, tries, err)
	medium, err := v.ReadMedium()
	note(state.MediumFile, medium, err)
	pending, err := v.ReadPending()
	note(state.PendingFile, pending, err)
	data, err := v.ReadRestoreData()
	note(state.RestoreDataFile, data, err)
	hash, err := v.ReadHash()
	note(state.HashFile, hash, err)
	key, err := v.ReadKey()
	note(state.KeyFile, []byte(key), err)
	b, err := v.ReadHistory()
	var history release.History
	if err == nil {
		history, err = release.ParseHistory(b)
	}
	note(state.HistoryFile, history, err)
	b, err = os.ReadFile(filepath.Join(dir, corpusMark))
	var mark state.Mark
	if err == nil {
		mark, err = state.ParseMark(b)
	}
	note(corpusMark, mark, err)
	b, err = os.ReadFile(filepath.Join(dir, corpusBoot))
	var boot state.Boot
	if err == nil {
		boot, err = state.ParseBoot(b)
	}
	note(corpusBoot, boot, err)
	return out, all
}

// TestOldStateIsRead: what an old unit keeps says the same to new programs, and what new programs write over it says the same to old ones.
func TestOldStateIsRead(t *testing.T) { eachEnd(t, testOldState) }

func testOldState(t *testing.T, r released) {
	o := r.programs(t)
	dir := copied(t, filepath.Join(o.dir, "state"))
	says := func() map[string]any {
		out, err := exec.Command(o.program("corpus"), "read", dir).Output()
		if err != nil {
			t.Fatalf("%s cannot read the state: %v", r.version, err)
		}
		var m map[string]any
		if err := json.Unmarshal(out, &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	agree := func(when string) {
		t.Helper()
		got, err := readState(dir)
		if err != nil {
			t.Fatalf("%s: the newest cannot read the state: %v", when, err)
		}
		b, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		var new map[string]any
		if err := json.Unmarshal(b, &new); err != nil {
			t.Fatal(err)
		}
		was := says()
		if len(was) < 12 {
			t.Fatalf("%s reads %d files only", r.version, len(was))
		}
		for _, d := range within("", was, new) {
			t.Errorf("%s: %s", when, d)
		}
	}
	agree("written by " + r.version)

	v := state.Open(dir)
	at := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	unit, err := v.ReadUnit()
	if err != nil {
		t.Fatal(err)
	}
	unit.Original = "WIDGET.LNX.SHINY.2027-01-01.0009.upd"
	request, err := state.NewRequest(state.KindRestore, state.Latest, "a test", at)
	if err != nil {
		t.Fatal(err)
	}
	b, err := v.ReadHistory()
	if err != nil {
		t.Fatal(err)
	}
	history, err := release.ParseHistory(b)
	if err != nil {
		t.Fatal(err)
	}
	history.Imaging("WIDGET.LNX.SHINY.2027-01-01.0009", true, at)
	past, err1 := history.Marshal()
	mark, err2 := state.Mark{Release: "WIDGET.LNX.SHINY.2027-01-01.0009", Request: request.ID, Serial: "SN-0001", Time: at}.Marshal()
	boot, err3 := state.Boot{ID: "b-9", Job: "restore", Reason: "a person chose it", HandOver: at}.Marshal()
	if err := errors.Join(err1, err2, err3,
		v.WriteUnit(unit), v.WriteRequest(request), v.WriteCounts(state.Counts{BootAttempts: 9, LastGood: at}), v.WriteHistory(past), v.WriteTries(2),
		v.WriteHash("$6$abcdefgh$ABCDEFGHIJKLMNOPQRSTUVWXYZ01234"), v.WriteKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, 32))),
		v.WriteMedium(state.Medium{ID: request.ID, Image: "WIDGET.LNX.SHINY.2027-01-01.0009.upd"}), v.WritePending(state.Pending{RecoveryArtifact: true}),
		v.WriteRestoreData(state.RestoreData{Preserve: true, BootArgs: "quiet"}),
		os.WriteFile(filepath.Join(dir, corpusMark), mark, 0o600), os.WriteFile(filepath.Join(dir, corpusBoot), boot, 0o600)); err != nil {
		t.Fatal(err)
	}
	agree("written by the newest")
	if u := says()[state.UnitFile].(map[string]any); u["original"] != unit.Original || u["firmware"] != string(layout.UEFI) {
		t.Errorf("%s reads %v", r.version, u)
	}
}

// within returns where what an old program says is not part of what a new one says.
func within(path string, was, is any) (out []string) {
	switch was := was.(type) {
	case map[string]any:
		m, ok := is.(map[string]any)
		if !ok {
			return []string{fmt.Sprintf("%s is an object, and now %v", path, is)}
		}
		for k, v := range was {
			out = append(out, within(path+"/"+k, v, m[k])...)
		}
		return out
	case []any:
		l, ok := is.([]any)
		if !ok || len(l) != len(was) {
			return []string{fmt.Sprintf("%s is a list of %d, and now %v", path, len(was), is)}
		}
		for i := range was {
			out = append(out, within(path+"/"+strconv.Itoa(i), was[i], l[i])...)
		}
		return out
	}
	if !reflect.DeepEqual(was, is) {
		out = append(out, fmt.Sprintf("%s is %v, and now %v", path, was, is))
	}
	return out
}

// server is a new server on the database of an old one, at the given time.
func newestServer(t *testing.T, database string, now func() time.Time) (http.Handler, *store.DB) {
	t.Helper()
	db, err := store.Open(t.Context(), database)
	if err != nil {
		t.Fatalf("the database of the old server: %v", err)
	}
	t.Cleanup(func() { _ = db.Close() })
	logins, err := login.New(db, bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	_, public, err := vault.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	to, err := vault.ParseRecipients(public)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	api.New(api.Config{Store: db, Vault: vault.New(db, to), Login: logins, Hub: &api.Hub{}, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Now: now}).Register(mux)
	return mux, db
}

// sendTo sends a request to a handler as if it came over TLS.
func sendTo(h http.Handler, method, path string, header http.Header, body []byte) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "https://server"+path, bytes.NewReader(body))
	r.RequestURI, r.TLS, r.RemoteAddr = path, &tls.ConnectionState{HandshakeComplete: true}, "127.0.0.1:4711"
	for k, v := range header {
		r.Header[k] = v
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// corpusPassword is the operator's in the databases of lab/testdata/corpus.
const corpusPassword = "corpus-password"

// TestOldDatabaseIsServed: a new server takes over the database of an old one, and knows the same of its units.
func TestOldDatabaseIsServed(t *testing.T) { eachEnd(t, testOldDatabase) }

func testOldDatabase(t *testing.T, r released) {
	dir := copied(t, filepath.Join(r.programs(t).dir, "server"))
	if _, err := api.OpenAuthority(dir); err != nil {
		t.Errorf("the authority of the old server: %v", err)
	}
	h, _ := newestServer(t, filepath.Join(dir, "gprov.db"), time.Now)
	operator := httptest.NewRequest("GET", "/", nil)
	operator.SetBasicAuth(login.Admin, corpusPassword)
	get := func(path string, into any) {
		t.Helper()
		w := sendTo(h, "GET", path, operator.Header, nil)
		if w.Code != http.StatusOK {
			t.Fatalf("%s: %d %s", path, w.Code, w.Body)
		}
		if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
			t.Fatal(err)
		}
	}
	var d api.Detail
	get("/v1/units/SN-0001", &d)
	if u := d.Unit; !u.Completed() || !u.Confirmed || u.Platform != "VIRT" || len(d.Enrolments) != 1 || len(d.Documents) != 1 {
		t.Errorf("the newest server knows of the unit: %+v", d)
	}
	var events struct{ Events []store.Event }
	get("/v1/units/SN-0001/events?limit=1000", &events)
	if len(events.Events) != 3 {
		t.Errorf("there are %d events, want 3", len(events.Events))
	}
}

// recorded is a request that an old unit has sent, as lab/testdata/corpus records it.
type recordedRequest struct {
	Method, Path string
	Header       http.Header
	Body         []byte
	Status       int
}

func recordedRequests(t *testing.T, file string) (out []recordedRequest) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for d := json.NewDecoder(f); ; {
		var q recordedRequest
		if err := d.Decode(&q); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		out = append(out, q)
	}
}

// TestOldRequestsAreAccepted: what an enrolled old unit has sent, byte by byte, a new server answers as the old one did. Nothing else
// counts as such a request: one byte more, and it is refused.
func TestOldRequestsAreAccepted(t *testing.T) { eachEnd(t, testOldRequests) }

func testOldRequests(t *testing.T, r released) {
	dir := copied(t, filepath.Join(r.programs(t).dir, "server"))
	var at time.Time
	h, db := newestServer(t, filepath.Join(dir, "enrolled.db"), func() time.Time { return at })
	var sent int
	for _, q := range recordedRequests(t, filepath.Join(dir, "requests.jsonl")) {
		if q.Path == "/v1/enrol" { // the database knows the unit already
			continue
		}
		ms, err := strconv.ParseInt(q.Header.Get(record.HeaderTime), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		at = time.UnixMilli(ms)
		if q.Method == http.MethodPost {
			if w := sendTo(h, q.Method, q.Path, q.Header, append(bytes.Clone(q.Body), ' ')); w.Code != http.StatusUnauthorized {
				t.Errorf("%s with a byte more: %d %s", q.Path, w.Code, w.Body)
			}
		}
		if w := sendTo(h, q.Method, q.Path, q.Header, q.Body); w.Code != q.Status || w.Code != http.StatusOK {
			t.Errorf("%s: %d, %s answered %d: %s", q.Path, w.Code, r.version, q.Status, w.Body)
		}
		sent++
	}
	if sent < 7 {
		t.Errorf("%d requests are recorded, want 7", sent)
	}
	u, err := db.Unit(t.Context(), "SN-0001")
	if err != nil || !u.Completed() {
		t.Errorf("after them the unit is %+v, %v", u, err)
	}
}
