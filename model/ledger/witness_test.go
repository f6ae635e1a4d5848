package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"gprovision/model/edit"
	"gprovision/model/ledger/ledgertest"
)

func witness(t testing.TB, c ledgertest.Cosigner) *Witness {
	t.Helper()
	w, err := ParseWitness(c.Key())
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// torchwood is what filippo.io/torchwood v0.6.1 made: the key of a witness, and a checkpoint that the log of these tests has signed too.
const (
	torchwoodKey = "witness.example/w1+24b5d9fe+BP0XJDhaoMdbZPt4zWAvodmR/ev3axPFjtcC6sg16fYY"
	torchwood    = `factory.example/log
0
47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=

— factory.example/log +TDSfn7N36CPDGYJvbaNfdgJ8fIPPOB3eiR6yHUu1aFexPG5VYXK0acak56jiQKri6Vg2C/qSqGOEdAjXfoJRI7vxAM=
— witness.example/w1 JLXZ/gAAAABrDgYCLQAf91s4t0YSzHjQQMGXCE8cxYePL5sYdJZVn7DoDv7WD80Us3LzyHrrLeLOF9XjS3tW+8UTkszFzbqN6o9DCA==
`
)

// TestTorchwood takes what another implementation has made.
func TestTorchwood(t *testing.T) {
	w, err := ParseWitness(torchwoodKey)
	if err != nil {
		t.Fatal(err)
	}
	_, verifier := key(t, origin, 1)
	if c, err := OpenCheckpoint([]byte(torchwood), verifier); err != nil || c.Size != 0 {
		t.Errorf("%+v %v", c, err)
	}
	got, err := Cosigners([]*Witness{w}, []byte(torchwood))
	if err != nil || len(got) != 1 || got[0].Witness != "witness.example/w1" || got[0].Time.Format(time.DateOnly) != "2026-11-30" {
		t.Errorf("%+v %v", got, err)
	}
	if c := ledgertest.NewCosigner("witness.example/w1", 9); c.Key() != torchwoodKey {
		t.Errorf("the witness of the tests has the key %s", c.Key())
	}
}

// TestCosigners counts who has signed, and nobody else.
func TestCosigners(t *testing.T) {
	signer, verifier := key(t, origin, 1)
	_, files := filled(t, 2, signer)
	a, b := ledgertest.NewCosigner("witness.example/a", 3), ledgertest.NewCosigner("witness.example/b", 4)
	again, log := ledgertest.NewCosigner("witness.example/again", 3), ledgertest.NewCosigner(origin, 5)
	with := func(cs ...ledgertest.Cosigner) []byte {
		out := slices.Clone(files[2])
		for _, c := range cs {
			out = append(out, c.Line(files[2])...)
		}
		return out
	}
	wa, wb, wagain, wlog := witness(t, a), witness(t, b), witness(t, again), witness(t, log)
	late := a
	late.Time = 1 << 63
	for what, tt := range map[string]struct {
		file  []byte
		known []*Witness
		want  string
	}{
		"both":                          {with(a, b), []*Witness{wa, wb}, "[witness.example/a witness.example/b]"},
		"one is not known":              {with(a, b), []*Witness{wb}, "[witness.example/b]"},
		"none is known":                 {with(a, b), nil, "[]"},
		"nobody has signed":             {files[2], []*Witness{wa, wb}, "[]"},
		"one is known twice":            {with(a, b), []*Witness{wa, wa}, "[witness.example/a]"},
		"one key under two names":       {with(a, again), []*Witness{wa, wagain}, "[witness.example/a]"},
		"one that is called as the log": {with(log), []*Witness{wlog}, "[" + origin + "]"},
		"another text":                  {append(slices.Clone(files[2]), a.Line(files[1])...), []*Witness{wa}, "error"},
		"a time that there is not":      {with(late), []*Witness{wa}, "error"},
		"no checkpoint":                 {[]byte("x\n\n" + a.Line([]byte("x"))), []*Witness{wa}, "error"},
	} {
		got, err := Cosigners(tt.known, tt.file)
		names := []string{}
		for _, c := range got {
			names = append(names, c.Witness)
			if c.Time.Unix() != 1_796_000_000 {
				t.Errorf("%s: at %s", what, c.Time)
			}
		}
		said := fmt.Sprint(names)
		if err != nil {
			said = "error"
		}
		if said != tt.want || err != nil && !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %s, %v, want %s", what, said, err, tt.want)
		}
	}
	// Two checkpoints, two names, one key.
	if got, err := Cosigners([]*Witness{wa, wagain, wb}, with(a), with(again, b)); err != nil || len(got) != 2 {
		t.Errorf("two checkpoints: %+v, %v", got, err)
	}
	// A witness is not the log, whatever it is called.
	_, text, _ := bytes.Cut(files[2], []byte("\n\n"))
	alone := append(bytes.TrimSuffix(slices.Clone(files[2]), text), log.Line(files[2])...)
	if _, err := OpenCheckpoint(alone, verifier); !errors.Is(err, ErrNobody) {
		t.Errorf("signed by a witness of the log's name alone: %v", err)
	}
}

// TestLines takes a witness's own lines from its answer, and no others.
func TestLines(t *testing.T) {
	signer, _ := key(t, origin, 1)
	_, files := filled(t, 2, signer)
	a, b := ledgertest.NewCosigner("witness.example/a", 3), ledgertest.NewCosigner("witness.example/b", 4)
	w, line := witness(t, a), a.Line(files[2])
	for what, answer := range map[string]string{"its line": line, "with that of another": b.Line(files[2]) + line, "twice": line + line} {
		if got, err := w.Lines(files[2], []byte(answer)); err != nil || string(got) != line {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
	for what, answer := range map[string]string{
		"nothing": "", "that of another": b.Line(files[2]), "one of another checkpoint": a.Line(files[1]), "no line": "x\n",
		"another text before it": "\nevil\n\n" + line, "an empty line": "\n" + line, "no line break": strings.TrimSuffix(line, "\n"),
	} {
		if got, err := w.Lines(files[2], []byte(answer)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
}

// TestParseWitness reads no key of another type, and none that is damaged.
func TestParseWitness(t *testing.T) {
	c := ledgertest.NewCosigner("witness.example/a", 3)
	good := c.Key()
	_, log, err := note.GenerateKey(bytes.NewReader(bytes.Repeat([]byte{3}, 32)), c.Name)
	if err != nil {
		t.Fatal(err)
	}
	if w, err := ParseWitness(good); err != nil || w.Name() != c.Name {
		t.Errorf("%+v %v", w, err)
	}
	for _, bad := range []string{
		"", "x", "witness.example/a", "+" + good, strings.Replace(good, "example/a", "example/b", 1),
		strings.Replace(good, "example/a", "example a", 1),
		good[:len(good)-4], good + "AAAA", log, strings.Replace(good, "+", "+0", 1),
	} {
		if w, err := ParseWitness(bad); !errors.Is(err, ErrFormat) {
			t.Errorf("%q: %+v %v", bad, w, err)
		}
	}
}

// FuzzCosigners: what a witness is said to have signed is the text that it has signed.
func FuzzCosigners(f *testing.F) {
	signer, _ := key(f, origin, 1)
	_, files := filled(f, 2, signer)
	a := ledgertest.NewCosigner("witness.example/a", 3)
	w, base := witness(f, a), append(slices.Clone(files[2]), a.Line(files[2])...)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, script []byte) {
		file := edit.Apply(base, script)
		got, err := Cosigners([]*Witness{w}, file)
		text, _, _ := bytes.Cut(file, []byte("\n\n"))
		want, _, _ := bytes.Cut(base, []byte("\n\n"))
		if err == nil && len(got) > 0 && !bytes.Equal(text, want) {
			t.Errorf("%q is cosigned", file)
		}
	})
}
