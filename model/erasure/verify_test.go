package erasure

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"gprovision/model/ledger"
	"gprovision/model/ledger/ledgertest"
	"gprovision/model/page"
	"gprovision/model/signature"
)

// world is a unit, a server that vouches for it, and its log.
type world struct {
	unit         ed25519.PrivateKey
	server       note.Signer
	log          *ledger.Log
	logKey       note.Signer
	keys         Keys
	serverVerify string // as in a key file
	logVerify    string
}

func newWorld(t testing.TB, n byte) *world {
	t.Helper()
	w := &world{unit: testKey(n)}
	pair := func(name string, n byte) (note.Signer, note.Verifier, string) {
		s, v := server(t, name, n)
		_, public, err := note.GenerateKey(bytes.NewReader(bytes.Repeat([]byte{n}, 32)), name)
		if err != nil {
			t.Fatal(err)
		}
		return s, v, public
	}
	var serverKey, logKey note.Verifier
	w.server, serverKey, w.serverVerify = pair("factory.example/units", n+1)
	w.logKey, logKey, w.logVerify = pair("factory.example/log", n+2)
	w.keys = Keys{Servers: []note.Verifier{serverKey}, Logs: []note.Verifier{logKey}}
	w.log = ledger.New(new(ledger.Memory), w.logKey)
	for i := range 5 {
		if _, err := w.log.Append(fmt.Appendf(nil, "other %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// files returns a certificate with all that goes with it: signed, vouched for, logged, and compared with itself.
func (w *world) files(t testing.TB, c Certificate) Files {
	t.Helper()
	file, sig := signed(t, c, w.unit)
	voucher, err := Voucher{Unit: c.Unit, Key: w.unit.Public().(ed25519.PublicKey), Since: at(0)}.Sign(w.server)
	if err != nil {
		t.Fatal(err)
	}
	n, err := w.log.Append(Record(file))
	if err != nil {
		t.Fatal(err)
	}
	checkpoint, err := w.log.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	p, err := w.log.Prove(n, checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	return Files{file, sig, voucher, p.Marshal(), checkpoint}
}

// forgery is a set of files of which something is not as it should be.
type forgery struct {
	files Files
	want  error // what Verify says; nil: it is no forgery, but Holds says no
}

// forgeries makes one of each kind.
func forgeries(t *testing.T) map[string]forgery {
	w, thief := newWorld(t, 10), newWorld(t, 20)
	good := w.files(t, sample())
	out := map[string]forgery{}
	add := func(name string, want error, change func(*Files)) {
		f := good
		if change(&f); reflect.DeepEqual(f, good) {
			t.Errorf("%s: nothing changed", name)
		}
		out[name] = forgery{f, want}
	}
	replace := func(b []byte, old, new string) []byte { return bytes.Replace(b, []byte(old), []byte(new), 1) }
	resign := func(f *Files, old, new string) { // the unit itself lies
		f.Certificate = replace(f.Certificate, old, new)
		public, err := UnitKey(w.unit.Public().(ed25519.PublicKey))
		if err != nil {
			t.Fatal(err)
		}
		s, err := signature.NewExternal(public, func(_ signature.Part, m []byte) ([]byte, error) { return ed25519.Sign(w.unit, m), nil })
		if err != nil {
			t.Fatal(err)
		}
		if f.Signature, err = s.Sign(bytes.NewReader(f.Certificate), signature.EraseComment("WX 0001", strings.Repeat("0a", 16))); err != nil {
			t.Fatal(err)
		}
		f.Proof, f.Checkpoint = nil, nil
	}
	other := sample()
	other.Unit, other.Run = "WX 0002", strings.Repeat("0b", 16)
	others, thiefs := w.files(t, other), thief.files(t, sample())

	add("a changed certificate", signature.ErrSignature, func(f *Files) { f.Certificate = replace(f.Certificate, "S-sda", "S-sdx") })
	add("no signature", signature.ErrFormat, func(f *Files) { f.Signature = nil })
	add("the signature of another certificate", signature.ErrComment, func(f *Files) { f.Signature = others.Signature })
	add("the signature of another key", signature.ErrNoKey, func(f *Files) { f.Signature = thiefs.Signature })
	add("a changed comment", signature.ErrComment, func(f *Files) { f.Signature = replace(f.Signature, "WX 0001", "WX 0002") })
	add("a damaged signature", signature.ErrFormat, func(f *Files) { f.Signature = f.Signature[:len(f.Signature)/2] })
	add("a better outcome, signed", ErrContradiction, func(f *Files) { resign(f, `"outcome": "weaker"`, `"outcome": "proved"`) })
	add("a reason less, signed", ErrContradiction, func(f *Files) { resign(f, "\"part\",\n        ", "") })
	add("a sample that is left, signed", ErrContradiction, func(f *Files) {
		resign(f, "\"4000\",\n            \"unchanged\": \"0\"", "\"4000\",\n            \"unchanged\": \"1\"")
	})
	add("a recovery volume with another outcome, signed", ErrContradiction, func(f *Files) {
		const rest = "\n    \"level\": \"clear\",\n    \"reasons\""
		resign(f, `"outcome": "weaker",`+rest, `"outcome": "proved",`+rest)
	})
	add("free space that is left, signed", ErrContradiction, func(f *Files) { resign(f, `"left": "0"`, `"left": "4096"`) })
	add("more read back than filled, signed", ErrFormat, func(f *Files) { resign(f, `"readBack": "536866816"`, `"readBack": "536866817"`) })
	add("an unknown key of the recovery volume, signed", ErrFormat, func(f *Files) {
		resign(f, "    \"flushed\": true,\n    \"unc", "    \"flushed\": true,\n    \"really\": true,\n    \"unc")
	})
	add("an unknown key, signed", ErrFormat, func(f *Files) { resign(f, "  \"drives\"", "  \"really\": true,\n  \"drives\"") })
	add("a key twice, signed", ErrFormat, func(f *Files) {
		resign(f, "  \"unit\": \"WX 0001\"", "  \"unit\": \"WX 0001\",\n  \"unit\": \"WX 0001\"")
	})
	add("other blanks, signed", ErrFormat, func(f *Files) { resign(f, "  \"unit\": ", "  \"unit\":  ") })
	add("more samples than blocks, signed", ErrFormat, func(f *Files) { resign(f, `"uninformative": "10"`, `"uninformative": "1073741824"`) })
	add("more read than blocks, signed", ErrFormat, func(f *Files) { resign(f, `"read": "5002"`, `"read": "1073741825"`) })
	add("a later version, signed", ErrFormat, func(f *Files) { resign(f, `"version": 1`, `"version": 2`) })
	add("text that is not printable, signed", ErrFormat, func(f *Files) { resign(f, `"shiny"`, `"shin\u001b"`) })
	add("a date that is none, signed", ErrFormat, func(f *Files) { resign(f, `"started": "2026-11-30`, `"started": "2026-11-31`) })
	add("the voucher of another unit", ErrVoucher, func(f *Files) { f.Voucher = others.Voucher })
	add("a changed voucher", ErrVoucher, func(f *Files) { f.Voucher = replace(f.Voucher, "WX 0001", "WX 0009") })
	add("no voucher at all", ErrVoucher, func(f *Files) { f.Voucher = []byte("WX 0001 is ours\n") })
	add("a checkpoint as a voucher, by the server's key", ErrVoucher, func(f *Files) {
		log := ledger.New(new(ledger.Memory), w.server)
		f.Voucher, _ = log.Checkpoint()
	})
	add("the proof of another certificate", ledger.ErrProof, func(f *Files) { f.Proof = others.Proof })
	add("a proof of another place", ledger.ErrProof, func(f *Files) { f.Proof = replace(f.Proof, "index 5", "index 4") })
	add("a changed checkpoint in the proof", ledger.ErrFormat, func(f *Files) { f.Proof = replace(f.Proof, "\n6\n", "\n7\n") })
	add("no proof at all", ledger.ErrFormat, func(f *Files) { f.Proof = []byte("logged, really\n") })

	add("no voucher", nil, func(f *Files) { f.Voucher = nil })
	add("a voucher of a server that nobody knows", nil, func(f *Files) { f.Voucher = thiefs.Voucher })
	add("all of it by a thief", nil, func(f *Files) { *f = thiefs })
	add("not logged", nil, func(f *Files) { f.Proof, f.Checkpoint = nil, nil })
	add("logged where nobody knows", nil, func(f *Files) { f.Proof, f.Checkpoint = thiefs.Proof, nil })
	weaker, failed := sample(), sample()
	weaker.Drives[1].Evidence.Media, failed.Drives[0].Evidence.Samples.Random.Unchanged = Flash, 1
	out["a weaker one"], out["a failed one"] = forgery{w.files(t, weaker), nil}, forgery{w.files(t, failed), nil}
	return out
}

// TestVerify: what is genuine holds, and each kind of forgery does not.
func TestVerify(t *testing.T) {
	w := newWorld(t, 10)
	good := w.files(t, sample())
	c, err := Verify(good, w.keys)
	if err != nil || c.Voucher == nil || c.Voucher.By != "factory.example/units" || c.Logged == nil || c.Index != 5 || !c.Compared {
		t.Fatalf("%+v, %v", c, err)
	}
	if err := c.Holds(true, true, 0); err != nil {
		t.Error(err)
	}
	for name, f := range forgeries(t) {
		c, err := Verify(f.files, w.keys)
		if !errors.Is(err, f.want) || (err == nil) != (f.want == nil) {
			t.Errorf("%s: %v, want %v", name, err, f.want)
		}
		if f.want != nil && !reflect.DeepEqual(c, Checked{}) {
			t.Errorf("%s: something is found all the same", name)
		}
		if err == nil && !errors.Is(c.Holds(true, false, 0), ErrNotProved) {
			t.Errorf("%s: it holds", name)
		}
	}
	older := sample()
	older.Volume = nil
	if c, err := Verify(w.files(t, older), w.keys); err != nil || c.Holds(true, false, 0) != nil || c.Certificate.Recovery == nil {
		t.Errorf("one without a recovery volume: %v", err)
	}
	for name, change := range map[string]func(*Files){
		"without a voucher": func(f *Files) { f.Voucher = nil }, "without a proof": func(f *Files) { f.Proof = nil },
		"without a checkpoint": func(f *Files) { f.Checkpoint = nil },
	} {
		f := good
		change(&f)
		c, err := Verify(f, w.keys)
		if err != nil || c.Holds(true, true, 0) == nil || (c.Holds(false, false, 0) == nil) != (f.Voucher != nil) {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}

// TestCompare: a checkpoint from elsewhere shows a log that has two faces.
func TestCompare(t *testing.T) {
	w := newWorld(t, 10)
	f := w.files(t, sample())
	at6 := f.Checkpoint
	for range 3 {
		if _, err := w.log.Append([]byte("later")); err != nil {
			t.Fatal(err)
		}
	}
	at9, err := w.log.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	growth, err := w.log.ProveGrowth(6, at9)
	if err != nil {
		t.Fatal(err)
	}
	short, err := w.log.ProveGrowth(5, at9)
	if err != nil {
		t.Fatal(err)
	}
	face := newWorld(t, 10) // the same keys, and another certificate in its place
	other := sample()
	other.Platform = "else"
	at6b := face.files(t, other).Checkpoint
	if _, err := face.log.Append([]byte("later")); err != nil {
		t.Fatal(err)
	}
	at7b, err := face.log.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	growthB, err := face.log.ProveGrowth(6, at7b)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := newWorld(t, 30)
	elsewhereSigner, elsewhereKey := server(t, "else.example/log", 9)
	elsewhereLog, err := ledger.New(new(ledger.Memory), elsewhereSigner).Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	keys := Keys{Servers: w.keys.Servers, Logs: append(slices.Clone(w.keys.Logs), elsewhereKey)}
	for name, c := range map[string]struct {
		checkpoint []byte
		compared   bool
		want       error
	}{
		"the same":            {at6, true, nil},
		"larger, with proof":  {growth.Marshal(), true, nil},
		"larger":              {at9, false, nil},
		"of another log":      {elsewhereLog, false, nil},
		"another face":        {at6b, false, ErrForked},
		"a grown other face":  {growthB.Marshal(), false, ErrForked},
		"proof of other size": {short.Marshal(), false, ErrForked},
		"none":                {[]byte("x"), false, ledger.ErrFormat},
		"of who knows whom":   {elsewhere.files(t, sample()).Checkpoint, false, ledger.ErrNobody},
	} {
		f.Checkpoint = c.checkpoint
		got, err := Verify(f, keys)
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) || got.Compared != c.compared {
			t.Errorf("%s: %v, %v, %s", name, got.Compared, err, got.NotCompared)
		}
	}
}

// cosign adds the signature of a witness to a checkpoint, and returns its key too.
func cosign(t *testing.T, checkpoint []byte, name string, seed byte) ([]byte, *ledger.Witness) {
	t.Helper()
	c := ledgertest.NewCosigner(name, seed)
	w, err := ledger.ParseWitness(c.Key())
	if err != nil {
		t.Fatal(err)
	}
	return append(slices.Clone(checkpoint), c.Line(checkpoint)...), w
}

// TestWitnesses counts the witnesses of the checkpoint that has the certificate, and of a later one that goes on from it.
func TestWitnesses(t *testing.T) {
	w := newWorld(t, 10)
	f := w.files(t, sample())
	p, err := ledger.ParseProof(f.Proof)
	if err != nil {
		t.Fatal(err)
	}
	a6, a := cosign(t, p.Checkpoint, "witness.example/a", 50)
	if _, err := w.log.Append([]byte("later")); err != nil {
		t.Fatal(err)
	}
	at7, err := w.log.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	b7, b := cosign(t, at7, "witness.example/b", 51)
	growth, err := w.log.ProveGrowth(6, b7)
	if err != nil {
		t.Fatal(err)
	}
	p.Checkpoint = a6
	by6 := p.Marshal()
	at := bytes.LastIndexByte(a6, '=') - 20
	forged := slices.Concat(a6[:at], []byte("AAAA"), a6[at+4:])
	p.Checkpoint = forged
	for name, c := range map[string]struct {
		proof, checkpoint []byte
		known             []*ledger.Witness
		want              int
	}{
		"nobody has":                       {f.Proof, nil, []*ledger.Witness{a, b}, 0},
		"one has":                          {by6, nil, []*ledger.Witness{a, b}, 1},
		"it is not known":                  {by6, nil, []*ledger.Witness{b}, 0},
		"another one later":                {by6, growth.Marshal(), []*ledger.Witness{a, b}, 2},
		"only later":                       {f.Proof, growth.Marshal(), []*ledger.Witness{a, b}, 1},
		"later, and nobody proves that it": {f.Proof, b7, []*ledger.Witness{a, b}, 0},
		"the same checkpoint":              {f.Proof, a6, []*ledger.Witness{a, b}, 1},
	} {
		g, keys := f, w.keys
		g.Proof, g.Checkpoint, keys.Witnesses = c.proof, c.checkpoint, c.known
		got, err := Verify(g, keys)
		if err != nil || len(got.Cosigned) != c.want {
			t.Errorf("%s: %+v, %v, want %d", name, got.Cosigned, err, c.want)
		}
		if err := got.Holds(true, false, c.want); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := got.Holds(true, false, c.want+1); !errors.Is(err, ErrNotProved) {
			t.Errorf("%s: more hold than have cosigned: %v", name, err)
		}
	}
	keys := w.keys
	f.Proof, keys.Witnesses = p.Marshal(), []*ledger.Witness{a}
	if _, err := Verify(f, keys); bytes.Equal(forged, a6) || !errors.Is(err, ledger.ErrFormat) {
		t.Errorf("a forged cosignature: %v", err)
	}
}

// program returns the verifier of the page, as a file.
func program(t *testing.T) string {
	t.Helper()
	for _, p := range []string{"python3", "openssl"} {
		if _, err := exec.LookPath(p); err != nil {
			if os.Getenv("GPROV_NO_SKIP") == "1" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	b, err := os.ReadFile("../../docs/formats/erase-certificate.md")
	if err != nil {
		t.Fatal(err)
	}
	_, code, _ := strings.Cut(string(b), "\n```python\n")
	code, _, ok := strings.Cut(code, "\n```\n")
	if lines := strings.Count(code, "\n") + 1; !ok || lines > 200 {
		t.Fatalf("the page has a program of %d lines", lines)
	}
	name := filepath.Join(t.TempDir(), "verify.py")
	if err := os.WriteFile(name, []byte(code), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestPython: the program of the page, which shares no code with this package, says the same of each certificate and each forgery.
func TestPython(t *testing.T) {
	verify, w := program(t), newWorld(t, 10)
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		name = filepath.Join(dir, name)
		if b == nil {
			return name
		}
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	serverKey, logKey := write("server.vkey", []byte(w.serverVerify+"\n")), write("log.vkey", []byte(w.logVerify+"\n"))
	cases := forgeries(t)
	cases["a good one"] = forgery{w.files(t, sample()), nil}
	older, bare, left := sample(), sample(), sample()
	older.Volume, bare.Volume, bare.Drives, left.Volume.Left = nil, nil, bare.Drives[:2], 4096
	left.Volume.Different, left.Volume.ReadBack = 1, left.Volume.ReadBack-1
	cases["one without a recovery volume"] = forgery{w.files(t, older), nil}
	cases["one without anything of it"] = forgery{w.files(t, bare), nil}
	cases["a recovery volume that failed"] = forgery{w.files(t, left), nil}
	names := slices.Sorted(maps.Keys(cases))
	var ask [][]string
	for i, name := range names {
		f := cases[name].files
		file := write(fmt.Sprintf("%d.json", i), f.Certificate)
		write(fmt.Sprintf("%d.json%s", i, signature.Suffix), f.Signature)
		write(fmt.Sprintf("%d.json%s", i, VoucherSuffix), f.Voucher)
		write(fmt.Sprintf("%d.json%s", i, ProofSuffix), f.Proof)
		ask = append(ask, []string{verify, file, "--key", serverKey, "--log-key", logKey})
	}
	var answers []struct {
		Status int
		Text   string
	}
	// Each is a run of the whole program, in one process: many starts of Python are slow.
	python(t, dir, ask, &answers, `
import contextlib, io, json, runpy, sys
answers = []
for sys.argv in json.load(sys.stdin):
    out, status = io.StringIO(), 0
    with contextlib.redirect_stdout(out):
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as e:
            if isinstance(e.code, str):
                print(e.code)
            status = 1 if isinstance(e.code, str) else e.code
    answers.append({"Status": status, "Text": out.getvalue()})
print(json.dumps(answers))
`)
	if len(answers) != len(names) {
		t.Fatalf("%d answers, want %d", len(answers), len(names))
	}
	for i, name := range names {
		status, says := 1, "it does not hold"
		c, err := Verify(cases[name].files, w.keys)
		if err == nil {
			if says = printed(c); c.Holds(true, false, 0) == nil {
				status = 0
			}
		}
		if got := answers[i]; got.Status != status || !strings.HasPrefix(got.Text, says) {
			t.Errorf("%s: status %d, want %d:\n%s\nwant\n%s\nGo says: %v", name, got.Status, status, got.Text, says, err)
		}
	}
}

// python runs a program that reads one JSON value and writes another one.
func python(t *testing.T, dir string, in, out any, code string) {
	t.Helper()
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("python3", "-c", code)
	cmd.Dir, cmd.Stdin, cmd.Stderr = dir, bytes.NewReader(b), os.Stderr
	b, err = cmd.Output()
	if err == nil {
		err = json.Unmarshal(b, out)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// printed is what the program prints.
func printed(c Checked) string {
	text := fmt.Sprintf("main %s %s\n", c.Certificate.Outcome, c.Certificate.Level)
	if r := c.Certificate.Recovery; r != nil {
		text += fmt.Sprintf("recovery %s %s\n", r.Outcome, r.Level)
	}
	for _, d := range c.Certificate.Drives {
		text += fmt.Sprintf("drive %s %s %s", d.Name, d.Outcome, d.Level)
		for _, r := range d.Reasons {
			text += " " + string(r)
		}
		text += "\n"
	}
	for _, p := range c.Certificate.Parts {
		text += fmt.Sprintf("part %s %s\n", p.Name, p.State)
	}
	by, log := "nobody", "nothing yet"
	if c.Voucher != nil {
		by = c.Voucher.By
	}
	if c.Logged != nil {
		log = fmt.Sprintf("%d of %d in %s", c.Index, c.Logged.Size, c.Logged.Origin)
	}
	return text + "vouched for by " + by + "\nlogged as " + log + "\n"
}

// TestPythonJudges: the two judge the same of any evidence.
func TestPythonJudges(t *testing.T) {
	verify := program(t)
	var key [32]byte
	r := rand.New(rand.NewChaCha8(key))
	names := methods()
	type one struct {
		Evidence Evidence `json:"evidence"`
		Require  Level    `json:"require"`
	}
	var ask []one
	var want []string
	outcomes := map[Outcome]int{}
	for range 5_000 {
		e := good(names[r.IntN(len(names))].name)
		for range r.IntN(4) {
			shake(r, reflect.ValueOf(&e).Elem())
		}
		require := []Level{"", Clear, Purge}[r.IntN(3)]
		v := Judge(e, require)
		outcomes[v.Outcome]++
		ask = append(ask, one{e, require})
		want = append(want, fmt.Sprint(v.Outcome, " ", v.Level, " ", v.Reasons))
	}
	for _, o := range []Outcome{Proved, Weaker, Unknown, Failed} {
		if outcomes[o] < 200 {
			t.Errorf("only %d are %s", outcomes[o], o)
		}
	}
	var got []string
	python(t, filepath.Dir(verify), ask, &got, `
import json, sys, verify
def answer(x):
    outcome, level, reasons = verify.judge(verify.typed(x["evidence"], verify.EVIDENCE), x["require"])
    return "%s %s [%s]" % (outcome, level, " ".join(reasons))
print(json.dumps([answer(x) for x in json.load(sys.stdin)]))
`)
	if len(got) != len(want) {
		t.Fatalf("%d answers, want %d", len(got), len(want))
	}
	bad := 0
	for i := range got {
		if got[i] != want[i] {
			if bad++; bad < 5 {
				b, _ := json.Marshal(ask[i])
				t.Errorf("Python says %s, Go says %s of\n%s", got[i], want[i], b)
			}
		}
	}
}

// TestPythonJudgesVolume: the two judge the same of a recovery volume.
func TestPythonJudgesVolume(t *testing.T) {
	verify := program(t)
	r := rand.New(rand.NewChaCha8([32]byte{1}))
	type one struct {
		Volume  Volume `json:"volume"`
		Require Level  `json:"require"`
	}
	var ask []one
	var want, got []string
	outcomes := map[Outcome]int{}
	for range 1_000 {
		v := *filled()
		for range r.IntN(3) {
			v.Left, v.Flushed, v.Uncached = Count(r.IntN(2)), r.IntN(8) > 0, r.IntN(8) > 0
			v.Filled, v.ReadBack, v.Different, v.Free = Count(r.IntN(3)), Count(r.IntN(3)), Count(r.IntN(4)/3), Count(r.IntN(2))
		}
		require := []Level{"", Clear, Purge}[r.IntN(3)*r.IntN(2)]
		x := JudgeVolume(v, require)
		v.Outcome, v.Level, v.Reasons = x.Outcome, x.Level, x.Reasons
		outcomes[x.Outcome]++
		ask, want = append(ask, one{v, require}), append(want, fmt.Sprint(x.Outcome, " ", x.Level, " ", x.Reasons))
	}
	if outcomes[Weaker] < 100 || outcomes[Unknown] < 100 || outcomes[Failed] < 100 {
		t.Errorf("outcomes: %v", outcomes)
	}
	python(t, filepath.Dir(verify), ask, &got, `
import json, sys, verify
def answer(x):
    outcome, level, reasons = verify.judge_volume(verify.typed(x["volume"], verify.VOLUME), x["require"])
    return "%s %s [%s]" % (outcome, level, " ".join(reasons))
print(json.dumps([answer(x) for x in json.load(sys.stdin)]))
`)
	if !slices.Equal(got, want) {
		t.Errorf("Python says\n%q\nGo says\n%q", got, want)
	}
}

// TestPart: the two say the same of each part that there can be. It is cleared only if that was seen, and nothing is left.
func TestPart(t *testing.T) {
	verify := program(t)
	var ask []Part
	var want []string
	states := map[PartState]int{}
	for i := range 1 << 5 {
		p := Part{Name: "x", Told: i&1 != 0, Requested: i&2 != 0}
		for bit, f := range []Found{FoundGone, FoundLeft, FoundUnknown} {
			if i&(4<<bit) != 0 {
				p.Seen = append(p.Seen, Sight{"key", f})
			}
		}
		p = p.Judged()
		if states[p.State]++; (p.State == Cleared) != (i&4 != 0 && i&8 == 0) || p.State == Requested && !p.Requested {
			t.Errorf("%+v", p)
		}
		ask, want = append(ask, p), append(want, string(p.State))
		if c := (Certificate{Parts: []Part{p}}); strings.Contains(c.Headline(), string(p.State)) != (p.State != Cleared) {
			t.Errorf("headline: %q", c.Headline())
		}
	}
	if len(states) != 4 {
		t.Errorf("%v", states)
	}
	var got []string
	python(t, filepath.Dir(verify), ask, &got, `
import json, sys, verify
print(json.dumps([verify.ended(verify.typed(x, verify.PART)) for x in json.load(sys.stdin)]))
`)
	if !slices.Equal(got, want) {
		t.Errorf("Python says %q, Go says %q", got, want)
	}
}

// shake changes one value somewhere in v.
func shake(r *rand.Rand, v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for range 10 {
			f := v.Field(r.IntN(v.NumField()))
			if f.Kind() == reflect.Pointer && f.IsNil() {
				continue
			}
			shake(r, f)
			return
		}
	case reflect.Pointer:
		if v.CanSet() && r.IntN(4) == 0 && v.Type() != reflect.TypeFor[*Count]() {
			v.SetZero()
			return
		}
		shake(r, v.Elem())
	case reflect.Slice:
		if v.Len() > 0 && r.IntN(3) > 0 {
			shake(r, v.Index(r.IntN(v.Len())))
		} else {
			v.SetLen(v.Len() / 2)
		}
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.String:
		switch v.Type() {
		case reflect.TypeFor[Media]():
			v.SetString(string([]Media{Rotating, Flash, UnknownMedia}[r.IntN(3)]))
		case reflect.TypeFor[Path]():
			v.SetString(string([]Path{Direct, USB, RAID, Virtual}[r.IntN(4)]))
		case reflect.TypeFor[Reset]():
			v.SetString(string([]Reset{ResetDone, ResetNone, ResetFailed}[r.IntN(3)]))
		case reflect.TypeFor[Method]():
			v.SetString(string(append([]Method{""}, methods()[r.IntN(len(methods()))].name)[r.IntN(2)]))
		}
	default:
		n := []uint64{0, 1, 2, 3, 4, 47, 48, MinSamples - 1, MinSamples, 5000, 1 << 30}[r.IntN(11)]
		for v.OverflowUint(n) {
			n /= 2
		}
		v.SetUint(n)
	}
}

// TestPage holds docs/formats/erase-certificate.md against the tables of this package.
func TestPage(t *testing.T) {
	const name = "formats/erase-certificate.md"
	docs := os.DirFS("../../docs")
	rows, err := page.Rows(docs, name, "## Rules")
	if err != nil {
		t.Fatal(err)
	}
	want := [][]string{{"outcome", "reason", "when"}}
	for _, r := range rules() {
		want = append(want, []string{string(r.outcome), "`" + string(r.reason) + "`", r.sentence})
	}
	if !reflect.DeepEqual(rows, want) {
		t.Errorf("the rules of the page are\n%q\nwant\n%q", rows, want)
	}
	if rows, err = page.Rows(docs, name, "## The recovery volume"); err != nil {
		t.Fatal(err)
	}
	want = [][]string{{"outcome", "reason", "when"}}
	for _, r := range volumeRules() {
		want = append(want, []string{string(r.outcome), "`" + string(r.reason) + "`", r.sentence})
	}
	if rows = slices.DeleteFunc(rows, func(r []string) bool { return len(r) != 3 }); !reflect.DeepEqual(rows, want) {
		t.Errorf("the rules of the recovery volume are\n%q\nwant\n%q", rows, want)
	}
	if rows, err = page.Rows(docs, name, "## Methods"); err != nil {
		t.Fatal(err)
	}
	got, have := map[string]string{}, map[string]string{}
	for _, row := range rows {
		for _, m := range page.Codes(row[0]) {
			if len(row) == 3 {
				got[m] = row[1] + " " + page.Codes(row[2])[0]
			}
		}
	}
	for _, m := range methods() {
		have[string(m.name)] = string(m.level) + " " + string(m.kind)
	}
	if !maps.Equal(got, have) {
		t.Errorf("the methods of the page are %v, want %v", got, have)
	}
	said := fmt.Sprintf("at most %d characters", MaxText)
	if err := page.Says(docs, name, said, fmt.Sprintf("at most %d entries, drives %d, the file 1 MiB", MaxList, MaxDrives), "at most 2^56",
		fmt.Sprintf("%d are needed", MinSamples)); err != nil || MaxCertificate != 1<<20 || MaxCount != 1<<56 {
		t.Error(err)
	}
	text, err := os.ReadFile("../../docs/" + name)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keysOf(reflect.TypeFor[Certificate]()) {
		if !bytes.Contains(text, []byte("`"+key+"`")) && !bytes.Contains(text, []byte(" "+key+"`")) {
			t.Errorf("the page does not say what %s is", key)
		}
	}
}

// keysOf returns all keys of a type in JSON.
func keysOf(t reflect.Type) []string {
	var out []string
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		return keysOf(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if key, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); key != "" {
				out = append(append(out, key), keysOf(t.Field(i).Type)...)
			}
		}
	}
	return out
}
