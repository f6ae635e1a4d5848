package api_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"gprovision/factory/api"
	"gprovision/factory/notary"
	"gprovision/model/erasure"
	"gprovision/model/erasure/erasuretest"
	"gprovision/model/ledger"
	"gprovision/model/ledger/ledgertest"
	"gprovision/model/record"
)

// witness is one by the words of C2SP tlog-witness, add-checkpoint: for one log, in memory.
type witness struct {
	ledgertest.Cosigner
	url string

	mu   sync.Mutex
	log  note.Verifier // the one log that it knows; nil: none
	size int64
	root tlog.Hash
	// instead answers in place of it, if it is there.
	instead http.HandlerFunc
	asked   int
}

func newWitness(t *testing.T, name string, seed byte) *witness {
	w := &witness{Cosigner: ledgertest.NewCosigner(name, seed)}
	srv := httptest.NewServer(w)
	t.Cleanup(srv.Close)
	w.url = srv.URL + "/prefix"
	return w
}

// set changes a witness while it may be asked.
func (w *witness) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

func (w *witness) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	if w.instead != nil {
		w.instead(rw, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || r.Method != http.MethodPost || r.URL.Path != "/prefix/add-checkpoint" {
		http.Error(rw, "no", http.StatusBadRequest)
		return
	}
	head, checkpoint, _ := strings.Cut(string(body), "\n\n")
	lines := strings.Split(head, "\n")
	var old, size int64
	if _, err := fmt.Sscanf(lines[0], "old %d", &old); err != nil || w.log == nil {
		http.Error(rw, "no such log", http.StatusNotFound)
		return
	}
	n, err := note.Open([]byte(checkpoint), note.VerifierList(w.log))
	if err != nil {
		http.Error(rw, "not signed", http.StatusForbidden)
		return
	}
	text := strings.Split(n.Text, "\n")
	root, err := tlog.ParseHash(text[2])
	if _, err2 := fmt.Sscan(text[1], &size); err != nil || err2 != nil || old > size {
		http.Error(rw, "no", http.StatusBadRequest)
		return
	}
	if old != w.size || old == size && root != w.root {
		rw.Header().Set("Content-Type", "text/x.tlog.size")
		rw.WriteHeader(http.StatusConflict)
		fmt.Fprintf(rw, "%d\n", w.size)
		return
	}
	var proof tlog.TreeProof
	for _, line := range lines[1:] {
		h, err := tlog.ParseHash(line)
		if err != nil {
			http.Error(rw, "no", http.StatusBadRequest)
			return
		}
		proof = append(proof, h)
	}
	if old == 0 && len(proof) > 0 || old > 0 && old < size && tlog.CheckTree(proof, size, root, old, w.root) != nil {
		http.Error(rw, "no proof", http.StatusUnprocessableEntity)
		return
	}
	w.size, w.root = size, root
	io.WriteString(rw, w.Line([]byte(checkpoint)))
}

// TestWitnesses has the log cosigned: who has a certificate's proof has the witnesses too, and one that was away is asked again.
func TestWitnesses(t *testing.T) {
	a, b := newWitness(t, "witness.example/a", 50), newWitness(t, "witness.example/b", 51)
	list, err := notary.ParseWitnesses("# those whom we ask\n\n" + a.Key() + " " + a.url + "\n" + b.Key() + " " + b.url + "/\n")
	if err != nil {
		t.Fatal(err)
	}
	s := startWith(t, t.TempDir(), true, func(c *api.Config) { c.Witnesses = list })
	keys := s.verifiers()
	for _, w := range list {
		keys.Witnesses = append(keys.Witnesses, w.Key)
	}
	a.log = keys.Logs[0]
	c := s.enrolled("S1", 1, mac)
	cosigned := func(q record.EraseSubmission) (names string) {
		t.Helper()
		reply, err := c.Erased(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		checked, err := erasure.Verify(whole(q, reply), keys)
		if err != nil || checked.Logged == nil {
			t.Fatal(checked.NotLogged, err)
		}
		for _, w := range checked.Cosigned {
			names += strings.TrimPrefix(w.Witness, "witness.example/")
		}
		return names
	}
	first, second := signed(t, erasuretest.Failed("S1", 1), 1), signed(t, erasuretest.Failed("S1", 2), 1)
	if got := cosigned(first); got != "a" || !strings.Contains(s.log.String(), "witness.example/b: it answers 404") {
		t.Errorf("one that does not know the log: %q\n%s", got, s.log)
	}
	b.set(func() { b.log = keys.Logs[0] })
	if got := cosigned(second); got != "ab" || a.size != 2 || b.size != 2 {
		t.Errorf("both: %q, %d, %d", got, a.size, b.size)
	}
	asked := a.asked
	// What the second one brought is in the proof of the first too, and then nobody is asked any more.
	if got := cosigned(first); got != "ab" || a.asked != asked {
		t.Errorf("the first again: %q, asked %d times more", got, a.asked-asked)
	}
	_, unit := s.operator("GET", "/v1/units/S1/erases/1", "")
	if !strings.Contains(string(unit), `"cosigned":2`) {
		t.Errorf("the server does not say so: %s", unit)
	}
	s.conforms("EraseFiles", unit)
}

// TestFalseWitnesses takes nothing of a witness that is not its signature on the very checkpoint, and the certificate all the same.
func TestFalseWitnesses(t *testing.T) {
	a, b := newWitness(t, "witness.example/a", 50), newWitness(t, "witness.example/b", 51)
	s := startWith(t, t.TempDir(), true, func(c *api.Config) {
		var err error
		if c.Witnesses, err = notary.ParseWitnesses(a.Key() + " " + a.url); err != nil {
			t.Fatal(err)
		}
	})
	keys := s.verifiers()
	keys.Witnesses = []*ledger.Witness{}
	for _, w := range []*witness{a, b} {
		k, err := ledger.ParseWitness(w.Key())
		if err != nil {
			t.Fatal(err)
		}
		keys.Witnesses = append(keys.Witnesses, k)
	}
	c := s.enrolled("S1", 1, mac)
	checkpoint := func(r *http.Request) []byte {
		body, _ := io.ReadAll(r.Body)
		_, checkpoint, _ := bytes.Cut(body, []byte("\n\n"))
		return checkpoint
	}
	number := byte(0)
	for what, tt := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request)
		want   string // in the log
	}{
		"nothing":         {func(http.ResponseWriter, *http.Request) {}, "no signature"},
		"no lines":        {func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "yes\n") }, "not in the format"},
		"that of another": {func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, b.Line(checkpoint(r))) }, "no signature"},
		"that of another text": {func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, a.Line([]byte("x")))
		}, "not in the format"},
		"another text before it": {func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "\nx\n\n"+a.Line([]byte("x")))
		}, "not in the format"},
		"too much": {func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 1<<20)) }, "more than 65536 bytes"},
		"another content": {func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "conflict", http.StatusConflict)
		}, "another content"},
		"a larger log": {func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "99", http.StatusConflict)
		}, "does not hold"},
		"the same size for ever": {func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "1", http.StatusConflict)
		}, "does not say how much"},
		"a proof that it refuses": {func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "no", http.StatusUnprocessableEntity)
		}, "answers 422"},
		"a connection that it ends": {func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
	} {
		number++
		a.set(func() { a.instead = tt.answer })
		before := len(s.log.String())
		q := signed(t, erasuretest.Failed("S1", number), 1)
		reply, err := c.Erased(t.Context(), q)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		checked, err := erasure.Verify(whole(q, reply), keys)
		if err != nil || checked.Logged == nil || len(checked.Cosigned) > 0 || checked.Index != int64(number)-1 {
			t.Errorf("%s: %+v %v", what, checked.Cosigned, err)
		}
		if said := s.log.String()[before:]; !strings.Contains(said, tt.want) {
			t.Errorf("%s: the log says %s", what, said)
		}
	}
	for _, bad := range []string{"x", a.Key(), a.Key() + " ftp://x", a.Key() + " http://x y", "x " + a.url, a.Key() + " http:///x"} {
		if list, err := notary.ParseWitnesses(bad); err == nil {
			t.Errorf("%q: %+v", bad, list)
		}
	}
}
