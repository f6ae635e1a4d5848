package cli

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"gprovision/model/erasure"
	"gprovision/model/erasure/erasuretest"
	"gprovision/model/ledger"
	"gprovision/model/ledger/ledgertest"
	"gprovision/site"
)

// eraseCase is a directory with a certificate and all that goes with it.
type eraseCase struct {
	t   *testing.T
	dir string
	log *ledger.Log
}

func (e *eraseCase) path(name string) string { return filepath.Join(e.dir, name) }

func (e *eraseCase) write(name string, b []byte, err error) {
	e.t.Helper()
	if err == nil {
		err = os.WriteFile(e.path(name), b, 0o600)
	}
	if err != nil {
		e.t.Fatal(err)
	}
}

// certificate returns one of a unit with an NVMe drive, whose evidence can be changed.
func certificate() erasure.Certificate {
	start := time.Date(2026, 11, 30, 10, 0, 0, 0, time.UTC)
	return erasure.Certificate{
		Run: strings.Repeat("0a", 16), Unit: "WX-0001", Platform: "shiny", Started: start, Ended: start.Add(time.Minute), Clock: erasure.ClockRTC,
		Parts: []erasure.Part{
			{Name: "TPM 2.0 (ACME)", Commands: []erasure.PartCommand{{Name: "PPI", Status: "pending", At: start}}, Requested: true,
				Seen: []erasure.Sight{{What: "key", Found: erasure.FoundLeft}}},
			{Name: "chip", Seen: []erasure.Sight{{What: "memory", Found: erasure.FoundGone}}},
		},
		Kept: []string{"the images"}, NotReached: []string{"users of the BMC"}, Software: erasure.Software{Gprovision: "r42", Kernel: "6.1.0"},
		Drives: []erasure.Drive{{
			Role: erasure.MainDisk, Name: "nvme0n1", Bus: "nvme", Model: "ACME <b>9</b>", Serial: "S1", Firmware: "1",
			Bytes: 512 << 20, BlockSize: 512,
			Commands: []erasure.Command{{
				Method: erasure.NVMeFormatUser, Name: "Format NVM", Arguments: "ses=1", Status: "0x0000", Started: start, Ended: start,
			}},
			NotReached: []string{"boot areas"}, Unwritten: []erasure.Range{{First: 8, Count: 1}},
			Evidence: erasure.Evidence{
				Method: erasure.NVMeFormatUser, Media: erasure.Flash, Path: erasure.Direct,
				Word: erasure.Word{NVMeFormat: &erasure.NVMeFormatWord{Namespaces: 1, Formats: []erasure.NamespaceFormat{{ID: 1, SES: 1}}}},
				Samples: erasure.Samples{
					Blocks: 1 << 20, Read: 5002, Ends: erasure.Places{Constant: 2}, Random: erasure.Places{Constant: 5000}, Reset: erasure.ResetDone,
				},
				Control: erasure.Control{Written: true, Reported: true, Zeroed: true},
			},
		}},
		Volume: erasuretest.Volume(),
	}
}

// newEraseCase writes c.json with all that goes with it, and the keys.
func newEraseCase(t *testing.T, c erasure.Certificate) *eraseCase {
	t.Helper()
	e := &eraseCase{t: t, dir: t.TempDir()}
	signer := func(name, file string, n byte) note.Signer {
		private, public, err := note.GenerateKey(bytes.NewReader(bytes.Repeat([]byte{n}, 32)), name)
		e.write(file, []byte("\n"+public+"\n"), err)
		s, err := note.NewSigner(private)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	server, log := signer("factory.example/units", "server.vkey", 1), signer("factory.example/log", "log.vkey", 2)
	signer("else.example", "else.vkey", 3)
	e.log = ledger.New(new(ledger.Memory), log)
	unit := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	file, sig, err := c.Sign(unit)
	e.write("c.json", file, err)
	e.write("c.json.minisig", sig, nil)
	voucher, err := erasure.Voucher{Unit: c.Unit, Key: unit.Public().(ed25519.PublicKey), Since: c.Started}.Sign(server)
	e.write("c.json.voucher", voucher, err)
	if _, err := e.log.Append(erasure.Record(file)); err != nil {
		t.Fatal(err)
	}
	checkpoint, err := e.log.Checkpoint()
	e.write("checkpoint", checkpoint, err)
	proof, err := e.log.Prove(0, checkpoint)
	e.write("c.json.tlog-proof", proof.Marshal(), err)
	return e
}

// cosign has a witness sign the checkpoint of the proof, and writes its key to the file witnesses.
func (e *eraseCase) cosign(name string, seed byte) {
	e.t.Helper()
	c := ledgertest.NewCosigner(name, seed)
	e.write("witnesses", []byte(c.Key()+"\n"), nil)
	file, err := os.ReadFile(e.path("c.json.tlog-proof"))
	_, checkpoint, _ := bytes.Cut(file, []byte("\n\n"))
	e.write("c.json.tlog-proof", append(file, c.Line(checkpoint)...), err)
}

// oneOfTwo has one witness sign, and not another one, which is known by its URL too.
func (e *eraseCase) oneOfTwo() {
	e.t.Helper()
	e.cosign("witness.example/a", 50)
	b, err := os.ReadFile(e.path("witnesses"))
	e.write("witnesses", append(b, ledgertest.NewCosigner("witness.example/b", 51).Key()+" https://witness.example\n"...), err)
}

// run calls gprov in the directory of the case, where words of args name files.
func (e *eraseCase) run(args ...string) (code int, out, errs string) {
	var o, x bytes.Buffer
	words := append([]string{"erase"}, args...)
	for i, w := range words {
		if _, err := os.Stat(e.path(w)); err == nil || strings.HasSuffix(w, ".json") {
			words[i] = e.path(w)
		}
	}
	code = run(&Context{Context: e.t.Context(), Stdout: &o, Stderr: &x, Site: site.Stock(), Version: "r42"}, words)
	return code, o.String(), x.String()
}

// all are the flags with which everything is asked.
func all() []string {
	return []string{"--key", "server.vkey", "--log-key", "log.vkey", "--checkpoint", "checkpoint"}
}

// TestEraseVerify: what is said, and with which status.
func TestEraseVerify(t *testing.T) {
	weaker, older, failed := certificate(), certificate(), certificate()
	weaker.Drives[0].Evidence.Hidden = 9
	older.Volume, failed.Volume.Different = nil, 4096
	failed.Volume.ReadBack -= 4096
	for name, c := range map[string]struct {
		certificate erasure.Certificate
		change      func(*eraseCase)
		args        []string
		status      int
		out, errs   []string
	}{
		"all of it": {certificate(), nil, all(), 0, []string{
			"erase of unit WX-0001 (shiny), run 0a0a",
			"it holds: the data of all main disks is proved to be gone. Recovery volume: proved by a weaker method only, at level clear.",
			"main disks: proved: the data is gone, at level clear", "recovery volume: proved by a weaker method only, at level clear",
			"sda2 (recovery volume, ext4): ACME stick, serial SERIAL-2, 4294967296 bytes", "- a filesystem was filled from within",
			"7 files unlinked. Of 3221225472 bytes of free space 3221217280 were filled", "4096 were left", "not reached: the journal",
			"- zeros may be unmapped blocks",
			"5000 samples say that the data is gone, 0 say that it is not",
			"5002 of 1048576 blocks were read afterwards",
			"if 0.1 % of it were left, they would miss that with a chance of at most 0.672 %",
			"at level clear\nTPM 2.0 (ACME): the firmware is asked to clear it at the next start; that was not seen\n\nnvme0n1", "\n  key: left\n",
			"\n  PPI: pending\n", "\nchip: cleared, and that was seen\n",
			"not reached: boot areas", "not reached: users of the BMC", "stays on the unit: the images", "not written: 1 blocks from 8",
			"vouched for by factory.example/units, since 2026-11-30 10:00:00", "logged as record 0 of 1 of factory.example/log",
			"agrees with the other checkpoint", "by the unit's own clock",
		}, nil},
		"without a recovery volume": {older, nil, all(), 0, []string{"is proved to be gone. Of the recovery volume nothing is said."}, nil},
		"a recovery volume that failed": {failed, nil, all(), 0, []string{
			"is proved to be gone. Recovery volume: failed: data is left", "- something else was read from the free space than was written to it",
		}, nil},
		"without a log's key": {certificate(), nil, []string{"--key", "server.vkey"}, 0, []string{"not yet logged: the proof"}, nil},
		"no keys": {certificate(), nil, nil, 1, []string{"signed by a unit nobody vouches for", "not yet logged"},
			[]string{"it is not proved", "nobody vouches for"}},
		"another server's key": {certificate(), nil, []string{"--key", "else.vkey"}, 1, []string{"nobody vouches for"},
			[]string{"no server that is known"}},
		"no proof": {certificate(), func(e *eraseCase) { os.Remove(e.path("c.json.tlog-proof")) }, all(), 1,
			[]string{"not yet logged: there is no proof"}, []string{"not yet logged"}},
		"no voucher": {certificate(), func(e *eraseCase) { os.Remove(e.path("c.json.voucher")) }, all(), 1,
			[]string{"there is no statement"}, nil},
		"weaker": {weaker, nil, all(), 1, []string{"main disks: proved by a weaker method only", "- sectors that the drive hides"},
			[]string{"the outcome is weaker"}},
		"a changed certificate": {certificate(), func(e *eraseCase) {
			b, err := os.ReadFile(e.path("c.json"))
			e.write("c.json", bytes.Replace(b, []byte(`"S1"`), []byte(`"S2"`), 1), err)
		}, all(), 1, nil, []string{"the signature does not hold"}},
		"no signature": {certificate(), func(e *eraseCase) { os.Remove(e.path("c.json.minisig")) }, all(), 1, nil,
			[]string{"minisig", "hint: check the path"}},
		"too large": {certificate(), func(e *eraseCase) { e.write("c.json", make([]byte, 2<<20), nil) }, all(), 1, nil,
			[]string{"more than 1048576 bytes"}},
		"a log of two faces": {certificate(), func(e *eraseCase) {
			other, err := ledgerOf(e, "else").Checkpoint()
			e.write("checkpoint", other, err)
		}, all(), 1, nil, []string{"different contents to different people"}},
		"witnesses": {certificate(), func(e *eraseCase) { e.cosign("witness.example/a", 50) },
			append(all(), "--witness", "witnesses"), 0,
			[]string{"logged as record 0 of 1 of factory.example/log, cosigned by witness.example/a at 2026-"}, nil},
		"a witness that has not": {certificate(), (*eraseCase).oneOfTwo, append(all(), "--witness", "witnesses"), 1,
			[]string{"cosigned by witness.example/a"}, []string{"1 of those that are known have cosigned, and 2 are"}},
		"as many as are demanded": {certificate(), (*eraseCase).oneOfTwo, append(all(), "--witness", "witnesses", "--quorum", "1"), 0,
			[]string{"cosigned by witness.example/a"}, nil},
		"a witness that nobody knows": {certificate(), func(e *eraseCase) { e.cosign("witness.example/a", 50) }, all(), 0,
			[]string{"with signatures that were not checked by witness.example/a"}, nil},
		"no witnesses that are known": {certificate(), nil, append(all(), "--quorum", "1"), 2, nil, []string{"--quorum 1 of 0 witnesses"}},
		"a witness without a log":     {certificate(), nil, []string{"--witness", "log.vkey"}, 2, nil, []string{"--witness needs --log-key"}},
		"a log as a witness": {certificate(), nil, append(all(), "--witness", "log.vkey"), 1, nil,
			[]string{"no key of a witness", "hint:"}},
		"no key in a file":     {certificate(), nil, []string{"--key", "c.json"}, 1, nil, []string{"hint: each line is a key"}},
		"a checkpoint alone":   {certificate(), nil, []string{"--checkpoint", "checkpoint"}, 2, nil, []string{"--checkpoint needs --log-key"}},
		"a missing checkpoint": {certificate(), nil, append(all()[:4], "--checkpoint", "nowhere.json"), 1, nil, []string{"nowhere.json"}},
	} {
		e := newEraseCase(t, c.certificate)
		if c.change != nil {
			c.change(e)
		}
		code, out, errs := e.run(append([]string{"verify", "c.json"}, c.args...)...)
		if code != c.status || (code == 0) != (errs == "") || (len(c.out) == 0) != (out == "") {
			t.Errorf("%s: status %d, want %d\n%s\n%s", name, code, c.status, out, errs)
		}
		for _, s := range c.out {
			if !strings.Contains(out, s) {
				t.Errorf("%s: nothing says %q:\n%s", name, s, out)
			}
		}
		for _, s := range c.errs {
			if !strings.Contains(errs, s) {
				t.Errorf("%s: no error says %q:\n%s", name, s, errs)
			}
		}
	}
}

// ledgerOf returns a log of the same key with another record.
func ledgerOf(e *eraseCase, record string) *ledger.Log {
	e.t.Helper()
	private, _, err := note.GenerateKey(bytes.NewReader(bytes.Repeat([]byte{2}, 32)), "factory.example/log")
	if err != nil {
		e.t.Fatal(err)
	}
	s, err := note.NewSigner(private)
	if err != nil {
		e.t.Fatal(err)
	}
	log := ledger.New(new(ledger.Memory), s)
	if _, err := log.Append([]byte(record)); err != nil {
		e.t.Fatal(err)
	}
	return log
}

// TestEraseJSON: the same as an answer for programs.
func TestEraseJSON(t *testing.T) {
	e := newEraseCase(t, certificate())
	for _, c := range []struct {
		args   []string
		status int
	}{{all(), 0}, {nil, 1}} {
		code, out, _ := e.run(append([]string{"verify", "--json", "c.json"}, c.args...)...)
		var v eraseView
		if err := json.Unmarshal([]byte(out), &v); err != nil || code != c.status || v.Holds != (c.status == 0) || (v.Why == "") != v.Holds {
			t.Errorf("%v: status %d, %v\n%s", c.args, code, err, out)
		}
		if v.Outcome != erasure.Proved || v.Drives[0].Samples != 5000 || len(v.Drives[0].Missed) != 3 || (v.VouchedBy != "") != v.Holds {
			t.Errorf("%s", out)
		}
	}
}

// TestEraseReport: the page says what holds and what does not, runs no script, loads nothing, and nothing that a drive says is markup.
func TestEraseReport(t *testing.T) {
	e := newEraseCase(t, certificate())
	code, out, errs := e.run(append([]string{"report", "c.json", "--html"}, all()...)...)
	if code != 0 || errs != "" {
		t.Fatalf("status %d\n%s", code, errs)
	}
	for _, s := range []string{
		"<title>Erase of WX-0001</title>", "is proved to be gone, and a server vouches", "ACME &lt;b&gt;9&lt;/b&gt;",
		"vouched for by factory.example/units",
		"record 0 of 1 of factory.example/log; it agrees", "zeros may be unmapped blocks", "at most 0.672 %",
		`<th>Of TPM 2.0 (ACME)</th><td class="failed">the firmware is asked`, "<h2>chip</h2>", `<td class="proved">cleared, and that was seen`,
		"boot areas", "5002 of 1048576 blocks", "users of the BMC", "the images",
		"says so. Recovery volume: proved by a weaker method only", "7 files unlinked", "a filesystem was filled from within", "the journal",
		"1 blocks from 8", "<code>ses=1</code> for nvme-format-user", "</html>",
	} {
		if !strings.Contains(out, s) {
			t.Errorf("nothing says %q:\n%s", s, out)
		}
	}
	for _, s := range []string{"<b>", "<script", "http", "src=", "not yet logged", "ZgotmplZ"} {
		if strings.Contains(out, s) {
			t.Errorf("it has %q:\n%s", s, out)
		}
	}
	if code, out, _ = e.run("report", "c.json", "--html"); code != 0 || !strings.Contains(out, "does not prove that the data is gone") ||
		!strings.Contains(out, "by a unit nobody vouches for") ||
		!strings.Contains(out, `<body class="doubt">`) || !strings.Contains(out, "not yet logged") {
		t.Errorf("without keys: status %d\n%s", code, out)
	}
	if code, out, errs := e.run("report", "c.json"); code != 2 || out != "" || !strings.Contains(errs, "--html") {
		t.Errorf("without a form: status %d\n%s%s", code, out, errs)
	}
	e.write("c.json.minisig", []byte("x"), nil)
	if code, out, _ := e.run("report", "c.json", "--html"); code != 1 || out != "" {
		t.Errorf("what does not hold is drawn: status %d\n%s", code, out)
	}
}
