package erasure

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"gprovision/model/edit"
	"gprovision/model/signature"
)

// testKey returns the same key for the same number.
func testKey(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

// at returns a time of the run.
func at(second int) time.Time { return time.Date(2026, 11, 30, 10, 0, second, 0, time.UTC) }

// sample returns a certificate of a unit with an NVMe drive and a rotating one, and its recovery volume on a stick.
func sample() Certificate {
	drive := func(role Role, name, bus string, m Method) Drive {
		e := good(m)
		d := Drive{
			Role: role, Name: name, Bus: bus, Model: "ACME " + bus + ` <9> "\`, Serial: "S-" + name, Firmware: "1.0", BlockSize: 512,
			Bytes: 512 << 30, Evidence: e,
			Capabilities: []Capability{{"SANICAP", "0xa0000002"}},
			Commands:     []Command{{m, "erase", "cdw10=0x00000204", "0x0000", at(1), at(2)}},
		}
		d.Evidence.Samples.Blocks = 1 << 30
		return d
	}
	c := Certificate{
		Version: Version, Run: strings.Repeat("0a", 16), Unit: "WX 0001", Platform: "shiny", Started: at(0), Ended: at(9), Clock: ClockServer,
		Drives: []Drive{
			drive(MainDisk, "nvme0n1", "nvme", NVMeSanitizeCrypto),
			drive(MainDisk, "sda", "sata", Overwrite),
			drive(RecoveryVolume, "sdb", "usb", Overwrite),
		},
		Parts: []Part{{
			Name: "TPM 2.0 (ACME)", Commands: []PartCommand{{"TPM2_Clear", "refused", at(3)}, {"PPI 5", "pending", at(4)}}, Requested: true,
			Seen: []Sight{{"key", FoundLeft}, {"resets", FoundUnknown}},
		}},
		Kept: []string{"the unit's key"}, NotReached: []string{"accounts of the management controller"},
		Software: Software{"r42", "6.1.0", strings.Repeat("ab", 32)},
	}
	c.Drives[2].Evidence.Path, c.Drives[2].Evidence.Media, c.Drives[2].Evidence.Part = USB, Flash, true
	c.Drives[2].Unwritten = []Range{{1 << 20, 8}}
	c.Volume = filled()
	return c
}

// filled returns a recovery volume with the best outcome that there is.
func filled() *Volume {
	return &Volume{
		Name: "sdb2", Model: "ACME", Serial: "S-sdb", Bytes: 1 << 30, Filesystem: "ext4", Unlinked: 7, Free: 1 << 29, Filled: 1<<29 - 4096,
		Flushed: true, Uncached: true, ReadBack: 1<<29 - 4096, Discarded: 1 << 29, NotReached: []string{"the journal"},
	}
}

// signed returns the files of a certificate that a key has signed.
func signed(t testing.TB, c Certificate, key ed25519.PrivateKey) (file, sig []byte) {
	t.Helper()
	file, sig, err := c.Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	return file, sig
}

// TestCertificate: what is signed is read as it was, and minisign says the same of the signature.
func TestCertificate(t *testing.T) {
	key := testKey(1)
	file, sig := signed(t, sample(), key)
	c, err := ParseSigned(file, sig)
	if err != nil {
		t.Fatal(err)
	}
	if c.Outcome != Proved || c.Level != Clear || *c.Recovery != (Result{Weaker, Clear}) || c.Drives[0].Level != Purge ||
		c.Parts[0].State != Requested ||
		!slices.Equal(c.Drives[2].Reasons, []Reason{"overwrite", "part", "unmapped"}) {
		t.Errorf("%s", file)
	}
	want := sample()
	want.Key = key.Public().(ed25519.PublicKey)
	if want = want.Judged(); !reflect.DeepEqual(c, want) {
		t.Errorf("%+v\nis read as\n%+v", want, c)
	}
	if again, err := c.Marshal(); err != nil || !bytes.Equal(again, file) {
		t.Errorf("written again: %v", err)
	}

	if _, err := exec.LookPath("minisign"); err != nil {
		if os.Getenv("GPROV_NO_SKIP") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	name := filepath.Join(t.TempDir(), "certificate.json")
	public, err := UnitKey(c.Key)
	if err := errors.Join(err, os.WriteFile(name, file, 0o600), os.WriteFile(name+signature.Suffix, sig, 0o600)); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("minisign", "-Vm", name, "-P", public.String()).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "erase-certificate WX 0001 "+c.Run) {
		t.Errorf("minisign: %v\n%s", err, out)
	}
}

// TestEnding: a recovery device that was to be erased and has failed, or of which nobody knows, counts for what follows, and nothing else
// of the recovery volume does.
func TestEnding(t *testing.T) {
	for _, c := range []struct{ mains, device, want Outcome }{
		{Proved, "", Proved}, {Proved, Proved, Proved}, {Proved, Weaker, Proved}, {Proved, Unknown, Unknown}, {Proved, Failed, Failed},
		{Weaker, Proved, Weaker}, {Weaker, Unknown, Unknown}, {Unknown, Failed, Failed}, {Failed, Unknown, Failed}, {Failed, Proved, Failed},
	} {
		in := Certificate{Outcome: c.mains, Drives: []Drive{{Role: MainDisk, Outcome: c.mains}}, Recovery: &Result{Outcome: Failed}}
		if c.device != "" {
			in.Drives = append(in.Drives, Drive{Role: RecoveryVolume, Outcome: c.device})
		}
		if got := in.Ending(); got != c.want {
			t.Errorf("%s, recovery device %q: %s, want %s", c.mains, c.device, got, c.want)
		}
	}
}

// TestForeignSignatures: a signature of another key, of another file, or for another purpose.
func TestForeignSignatures(t *testing.T) {
	key := testKey(1)
	file, sig := signed(t, sample(), key)
	_, others := signed(t, sample(), testKey(2))
	run := sample()
	run.Run = strings.Repeat("0b", 16)
	_, otherRun := signed(t, run, key)
	later := sample()
	later.Ended = at(10)
	_, otherFile := signed(t, later, key)
	for name, c := range map[string]struct {
		sig  []byte
		want error
	}{
		"none":           {nil, signature.ErrFormat},
		"of another key": {others, signature.ErrNoKey},
		"of another run": {otherRun, signature.ErrComment},
		"of another end": {otherFile, signature.ErrSignature},
		"with a changed comment": {bytes.Replace(sig, []byte("WX 0001"), []byte("WX 0002"), 1),
			signature.ErrComment},
	} {
		if _, err := ParseSigned(file, c.sig); !errors.Is(err, c.want) {
			t.Errorf("a signature %s: %v", name, err)
		}
	}
}

// TestParseRefuses: there is one way to write a certificate, and none to say what does not follow.
func TestParseRefuses(t *testing.T) {
	good, _ := signed(t, sample(), testKey(1))
	const before = "\"changed\": \"4000\",\n            \"unchanged\": "
	for what, c := range map[string]struct {
		old, new string
		want     error
	}{
		"a later version":   {`"version": 1`, `"version": 2`, ErrFormat},
		"an unknown key":    {`"unit":`, `"extra": 1, "unit":`, ErrFormat},
		"a key twice":       {`  "unit": "WX 0001",`, "  \"unit\": \"WX 0001\",\n  \"unit\": \"WX 0001\",", ErrFormat},
		"a key in capitals": {`"unit":`, `"UNIT":`, ErrFormat},
		"other blanks":      {`"unit": `, `"unit":  `, ErrFormat},
		"other order": {
			"\"unit\": \"WX 0001\",\n  \"platform\": \"shiny\"", "\"platform\": \"shiny\",\n  \"unit\": \"WX 0001\"", ErrFormat,
		},
		"an escape that need not be": {`"shiny"`, `"shin\u0079"`, ErrFormat},
		"a number for a string":      {`"hidden": "0"`, `"hidden": 0`, ErrFormat},
		"a number with a fraction":   {`"blockSize": 512`, `"blockSize": 512.0`, ErrFormat},
		"zeros in front":             {`"hidden": "0"`, `"hidden": "00"`, ErrFormat},
		"a time with a zone":         {`:09Z"`, `:09+00:00"`, ErrFormat},
		"parts of a second":          {`:09Z"`, `:09.5Z"`, ErrFormat},
		"no list":                    {`"shiny",`, "\"shiny\",\n  \"kept\": null,", ErrFormat},
		"something behind it":        {"\n}\n", "\n}\n\n", ErrFormat},
		"no end of line":             {"\n}\n", "\n}", ErrFormat},
		"a mark in front":            {"{\n  \"version\"", "\xef\xbb\xbf{\n  \"version\"", ErrFormat},
		"text that is not printable": {`"shiny"`, `"shin\u001b"`, ErrFormat},
		"a line in a text":           {`"shiny"`, `"shi\ny"`, ErrFormat},
		"a letter beyond ASCII":      {`"shiny"`, `"shinü"`, ErrFormat},
		"a better outcome": {`  "recovery": {
    "outcome": "weaker"`, `  "recovery": {
    "outcome": "proved"`, ErrContradiction},
		"a better level": {`  "outcome": "proved",
  "level": "clear",
  "recovery"`, `  "outcome": "proved",
  "level": "purge",
  "recovery"`, ErrContradiction},
		"a better drive": {`"outcome": "weaker",
      "level": "clear",
      "reasons": [
        "overwrite",
        "part",
        "unmapped"
      ]`, `"outcome": "proved",
      "level": "clear"`, ErrContradiction},
		"a reason less":          {"\"part\",\n        \"unmapped\"", `"part"`, ErrContradiction},
		"a sample that is left":  {before + `"0"`, before + `"1"`, ErrContradiction},
		"no control":             {`"reported": true`, `"reported": false`, ErrContradiction},
		"a level that it misses": {`"require": ""`, `"require": "purge"`, ErrContradiction},

		"a better part":          {`"state": "requested"`, `"state": "cleared"`, ErrContradiction},
		"a request that is none": {`"requested": true`, `"requested": false`, ErrContradiction},

		"a part without a name": {`"name": "TPM 2.0 (ACME)"`, `"name": ""`, ErrFormat},
		"a find of no kind":     {`"found": "left"`, `"found": "lost"`, ErrFormat},
		"a method of no kind":   {`"method": "overwrite",`, `"method": "wish",`, ErrFormat},

		"a role of no kind":        {`"role": "main"`, `"role": "other"`, ErrFormat},
		"a clock of no kind":       {`"clock": "server"`, `"clock": "sun"`, ErrFormat},
		"a level of no kind":       {`"require": ""`, `"require": "destroy"`, ErrFormat},
		"a media of no kind":       {`"media": "rotating"`, `"media": "tape"`, ErrFormat},
		"a path of no kind":        {`"path": "usb"`, `"path": "air"`, ErrFormat},
		"a reset of no kind":       {`"reset": "done"`, `"reset": "soon"`, ErrFormat},
		"a run that is none":       {`"run": "0a`, `"run": "0A`, ErrFormat},
		"a name that is none":      {`"WX 0001"`, `" WX"`, ErrFormat},
		"a key too short":          {`"key": "`, `"key": "", "x": "`, ErrFormat},
		"an artifact that is none": {`"artifact": "ab`, `"artifact": "`, ErrFormat},
		"an end before the start":  {`"ended": "2026`, `"ended": "2025`, ErrFormat},
		"one drive twice":          {`"name": "sda"`, `"name": "sdb"`, ErrFormat},
		"no name of a drive":       {`"name": "sda"`, `"name": ""`, ErrFormat},
		"no size of blocks":        {`"blockSize": 512`, `"blockSize": 0`, ErrFormat},
		"a larger drive":           {`"bytes": "549755813888"`, `"bytes": "549755814400"`, ErrFormat},
		"more than there is":       {`"changed": "4000"`, `"changed": "1073741824"`, ErrFormat},
		"more read than there is":  {`"read": "5002"`, `"read": "1073741825"`, ErrFormat},
		"more ends than two":       {`"changed": "2"`, `"changed": "3"`, ErrFormat},
		"a volume that is proved": {"\"outcome\": \"weaker\",\n    \"level\": \"clear\",\n    \"reasons\"",
			"\"outcome\": \"proved\",\n    \"level\": \"clear\",\n    \"reasons\"", ErrContradiction},
		"a volume without a reason": {`"from-within"`, `"left"`, ErrContradiction},
		"a volume without a name":   {`"name": "sdb2"`, `"name": ""`, ErrFormat},
		"more back than filled":     {`"readBack": "536866816"`, `"readBack": "536866817"`, ErrFormat},
		"more filled than there is": {`"filled": "536866816"`, `"filled": "1073741825"`, ErrFormat},
		"too large a number":        {`"hidden": "0"`, `"hidden": "72057594037927937"`, ErrFormat},
	} {
		file := strings.Replace(string(good), c.old, c.new, 1)
		if file == string(good) {
			t.Errorf("%s: nothing changed", what)
		}
		if _, err := Parse([]byte(file)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, b := range map[string][]byte{
		"nothing": nil, "null": []byte("null"), "a list": []byte("[]"), "too much": make([]byte, MaxCertificate+1),
	} {
		if _, err := Parse(b); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestBounds: what is too much is not signed.
func TestBounds(t *testing.T) {
	for what, change := range map[string]func(*Certificate){
		"a long text":      func(c *Certificate) { c.Platform = strings.Repeat("x", MaxText+1) },
		"a long list":      func(c *Certificate) { c.Kept = make([]string, MaxList+1) },
		"no drives":        func(c *Certificate) { c.Drives = nil },
		"many drives":      func(c *Certificate) { c.Drives = manyDrives(MaxDrives + 1) },
		"a time before it": func(c *Certificate) { c.Drives[1].Commands[0].Started = time.Time{} },
		"a local time":     func(c *Certificate) { c.Started = at(0).In(time.FixedZone("x", 60)) },
		"another word":     func(c *Certificate) { c.Drives[0].Evidence.Word.MMC = &MMCWord{} },
		"an overwrite of less": func(c *Certificate) {
			c.Drives[1].Evidence.Word.Overwrite = &OverwriteWord{Sectors: 1, Written: 1, ReadBack: 1, Flushed: true}
		},
		"a large file": func(c *Certificate) {
			c.Drives = manyDrives(MaxDrives)
			for i := range c.Drives {
				c.Drives[i].NotReached = slices.Repeat([]string{strings.Repeat("x", MaxText)}, MaxList)
			}
		},
	} {
		c := sample()
		change(&c)
		if _, _, err := c.Sign(testKey(1)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", what, err)
		}
	}
	c := sample()
	c.Drives, c.Platform = manyDrives(MaxDrives), strings.Repeat("x", MaxText)
	signed(t, c, testKey(1))
}

func manyDrives(n int) []Drive {
	out := slices.Repeat(sample().Drives[:1], n)
	for i := range out {
		out[i].Name = fmt.Sprint("nvme", i)
	}
	return out
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"a b": "a b", "a\x00\n\xff": `a\x00\x0a\xff`, strings.Repeat("x", 300): strings.Repeat("x", MaxText),
	} {
		if got := Printable(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
	if got := Printable(strings.Repeat("x", MaxText-1) + "\n"); len(got) != MaxText-1 {
		t.Errorf("half an escape: %q", got)
	}
}

// server returns the two halves of a key of a server, the same for the same number.
func server(t testing.TB, name string, n byte) (note.Signer, note.Verifier) {
	t.Helper()
	private, public, err := note.GenerateKey(bytes.NewReader(bytes.Repeat([]byte{n}, 32)), name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(public)
	if err != nil {
		t.Fatal(err)
	}
	return s, v
}

func TestVoucher(t *testing.T) {
	signer, verifier := server(t, "factory.example/units", 7)
	_, other := server(t, "factory.example/units", 8)
	want := Voucher{Unit: "WX 0001", Key: testKey(1).Public().(ed25519.PublicKey), Since: at(3)}
	file, err := want.Sign(signer)
	if err != nil {
		t.Fatal(err)
	}
	want.By = "factory.example/units"
	if got, err := OpenVoucher(file, other, verifier); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for what, known := range map[string][]note.Verifier{"no key": nil, "another key": {other}} {
		if _, err := OpenVoucher(file, known...); !errors.Is(err, ErrNobody) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, change := range map[string][2]string{
		"another unit": {"WX 0001", "WX 0002"}, "another key": {"key ", "key A"}, "another time": {":03Z", ":04Z"}, "no note": {"\n\n", "\n"},
	} {
		if _, err := OpenVoucher([]byte(strings.Replace(string(file), change[0], change[1], 1)), verifier); !errors.Is(err, ErrVoucher) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, text := range map[string]string{
		"a checkpoint":    "factory.example/log\n1\nAAAA\n",
		"a unit too many": want.Text() + "unit WX 0002\n",
		"a title of ours": strings.Replace(want.Text(), "v1", "v2", 1),
		"no key":          strings.Replace(want.Text(), "key ", "key", 1),
		"a local time":    strings.Replace(want.Text(), ":03Z", ":03+00:00", 1),
		"other order":     "gprovision unit key v1\nkey" + strings.SplitN(want.Text(), "\nkey", 2)[1] + "unit WX 0001\n",
	} {
		file, err := note.Sign(&note.Note{Text: text}, signer)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := OpenVoucher(file, verifier); !errors.Is(err, ErrVoucher) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := OpenVoucher(make([]byte, MaxVoucher+1), verifier); !errors.Is(err, ErrVoucher) {
		t.Errorf("a large one: %v", err)
	}
	for _, v := range []Voucher{{Unit: "", Key: want.Key}, {Unit: "x", Key: want.Key[:31]}} {
		if _, err := v.Sign(signer); !errors.Is(err, ErrVoucher) {
			t.Errorf("%q: %v", v.Unit, err)
		}
	}
}

// FuzzParse: what is read is written the same, and is as it must be.
func FuzzParse(f *testing.F) {
	base, _ := signed(f, sample(), testKey(1))
	f.Add([]byte{})
	f.Add([]byte{0, 0, 0, 20, '2', 0})
	f.Fuzz(func(t *testing.T, script []byte) {
		file := edit.Apply(base, script)
		c, err := Parse(file)
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrContradiction) {
				t.Error(err)
			}
			return
		}
		if b, err := c.Marshal(); err != nil || !bytes.Equal(b, file) || c.Validate() != nil {
			t.Errorf("%v: read as %s", err, b)
		}
	})
}

// FuzzVoucher: a voucher that holds is the one that was signed, but for signatures of others.
func FuzzVoucher(f *testing.F) {
	signer, verifier := server(f, "factory.example/units", 7)
	v := Voucher{Unit: "WX 0001", Key: testKey(1).Public().(ed25519.PublicKey), Since: at(3)}
	base, err := v.Sign(signer)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, script []byte) {
		if got, err := OpenVoucher(edit.Apply(base, script), verifier); err == nil && got.Text() != v.Text() {
			t.Errorf("%+v", got)
		}
	})
}
