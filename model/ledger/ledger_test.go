package ledger

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"gprovision/model/edit"
)

const origin = "factory.example/log"

// key returns the two halves of a key, the same for the same number.
func key(t testing.TB, name string, n byte) (note.Signer, note.Verifier) {
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

func record(n int64) []byte { return fmt.Appendf(nil, "record %d\n", n) }

// filled returns a log with n records, and a checkpoint of each size from 0.
func filled(t testing.TB, n int64, signer note.Signer) (*Log, [][]byte) {
	t.Helper()
	l := New(new(Memory), signer)
	var checkpoints [][]byte
	for i := range n + 1 {
		c, err := l.Checkpoint()
		if err != nil {
			t.Fatal(err)
		}
		checkpoints = append(checkpoints, c)
		if i == n {
			break
		}
		if got, err := l.Append(record(i)); got != i || err != nil {
			t.Fatalf("record %d is %d, %v", i, got, err)
		}
	}
	return l, checkpoints
}

// rootOf is the root of a tree by the words of RFC 6962, section 2.1.
func rootOf(records [][]byte) [32]byte {
	switch n := len(records); n {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(append([]byte{0}, records[0]...))
	default:
		k := 1
		for k*2 < n {
			k *= 2
		}
		a, b := rootOf(records[:k]), rootOf(records[k:])
		return sha256.Sum256(slices.Concat([]byte{1}, a[:], b[:]))
	}
}

// TestLog: each record of each size is proved, each size goes on from each smaller one, and a proof holds for nothing else.
func TestLog(t *testing.T) {
	const n = 40
	signer, verifier := key(t, origin, 1)
	l, checkpoints := filled(t, n, signer)
	var records [][]byte
	opened := make([]Checkpoint, n+1)
	for size, file := range checkpoints {
		c, err := OpenCheckpoint(file, verifier)
		if err != nil || c.Origin != origin || c.Size != int64(size) || [32]byte(c.Root) != rootOf(records) {
			t.Fatalf("checkpoint of %d: %+v, %v", size, c, err)
		}
		opened[size] = c
		records = append(records, record(int64(size)))
	}
	for size := int64(1); size <= n; size++ {
		for i := range size {
			p, err := l.Prove(i, checkpoints[size])
			if err != nil {
				t.Fatal(err)
			}
			if p, err = ParseProof(p.Marshal()); err != nil {
				t.Fatal(err)
			}
			if c, err := p.Verify(record(i), verifier); err != nil || c.Size != size {
				t.Fatalf("record %d of %d: %v", i, size, err)
			}
			if _, err := p.Verify(record(i+1), verifier); !errors.Is(err, ErrProof) {
				t.Errorf("another record than %d of %d: %v", i, size, err)
			}
			q := p
			if q.Index++; size > 1 {
				if _, err := q.Verify(record(i), verifier); !errors.Is(err, ErrProof) {
					t.Errorf("record %d of %d at another place: %v", i, size, err)
				}
			}
			for j := range p.Hashes {
				q := p
				q.Hashes = slices.Clone(p.Hashes)
				q.Hashes[j][0] ^= 1
				if _, err := q.Verify(record(i), verifier); !errors.Is(err, ErrProof) {
					t.Errorf("record %d of %d with another hash %d: %v", i, size, j, err)
				}
			}
		}
		for old := range size + 1 {
			g, err := l.ProveGrowth(old, checkpoints[size])
			if err != nil {
				t.Fatal(err)
			}
			if g, err = ParseGrowth(g.Marshal()); err != nil {
				t.Fatal(err)
			}
			if c, err := g.Verify(opened[old], verifier); err != nil || c.Size != size {
				t.Fatalf("%d to %d: %v", old, size, err)
			}
			other := opened[old]
			other.Root[0] ^= 1
			if _, err := g.Verify(other, verifier); !errors.Is(err, ErrProof) {
				t.Errorf("%d to %d, from another root: %v", old, size, err)
			}
			if old > 0 {
				if _, err := g.Verify(opened[old-1], verifier); !errors.Is(err, ErrProof) {
					t.Errorf("%d to %d, from another size: %v", old, size, err)
				}
			}
		}
	}
	g, err := l.ProveGrowth(3, checkpoints[9])
	other := opened[3]
	other.Origin = "else.example/log"
	if _, err2 := g.Verify(other, verifier); err != nil || !errors.Is(err2, ErrProof) {
		t.Errorf("growth from another log: %v, %v", err, err2)
	}
	for _, i := range []int64{-1, 9} {
		if _, err := l.Prove(i, checkpoints[9]); !errors.Is(err, ErrProof) {
			t.Errorf("record %d of 9: %v", i, err)
		}
	}
	for _, old := range []int64{-1, 10} {
		if _, err := l.ProveGrowth(old, checkpoints[9]); !errors.Is(err, ErrProof) {
			t.Errorf("%d to 9: %v", old, err)
		}
	}
}

// TestBehind: a log that was restored from a backup does not go on from checkpoints that it gave since, nor prove anything by them; another
// log does not either.
func TestBehind(t *testing.T) {
	signer, verifier := key(t, origin, 1)
	_, later := filled(t, 9, signer)
	restored, _ := filled(t, 5, signer)
	last, err := OpenCheckpoint(later[9], verifier)
	if err != nil {
		t.Fatal(err)
	}
	if err := restored.Continues(last); !errors.Is(err, ErrBehind) {
		t.Errorf("a log that is behind: %v", err)
	}
	if _, err := restored.Prove(1, later[9]); !errors.Is(err, ErrBehind) {
		t.Errorf("proves by a checkpoint that it does not have: %v", err)
	}
	if _, err := restored.ProveGrowth(1, later[9]); !errors.Is(err, ErrBehind) {
		t.Errorf("proves growth to a checkpoint that it does not have: %v", err)
	}
	for range 4 { // it grows to the same size, with other records
		if _, err := restored.Append([]byte("other")); err != nil {
			t.Fatal(err)
		}
	}
	if err := restored.Continues(last); !errors.Is(err, ErrBehind) {
		t.Errorf("a log that went another way: %v", err)
	}
	before, err := OpenCheckpoint(later[5], verifier)
	if err != nil || restored.Continues(before) != nil {
		t.Errorf("a log that goes on: %v", restored.Continues(before))
	}
	newSigner, _ := key(t, "factory.example/log2", 2)
	again, _ := filled(t, 9, newSigner)
	if err := again.Continues(last); !errors.Is(err, ErrBehind) {
		t.Errorf("a new origin: %v", err)
	}
}

// TestCheckpoint: who signed it, and what it may say.
func TestCheckpoint(t *testing.T) {
	signer, verifier := key(t, origin, 1)
	_, otherKey := key(t, origin, 2)
	witness, witnessKey := key(t, "witness.example/w1", 3)
	_, files := filled(t, 2, signer)
	for what, known := range map[string][]note.Verifier{"no key": nil, "another key of that name": {otherKey}} {
		if _, err := OpenCheckpoint(files[2], known...); !errors.Is(err, ErrNobody) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// A witness alone is not the log.
	n, err := note.Open(files[2], note.VerifierList(verifier))
	if err != nil {
		t.Fatal(err)
	}
	byWitness, err := note.Sign(&note.Note{Text: n.Text}, witness)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCheckpoint(byWitness, verifier, witnessKey); !errors.Is(err, ErrNobody) {
		t.Errorf("signed by a witness alone: %v", err)
	}
	_, line, _ := bytes.Cut(byWitness, []byte("\n\n"))
	cosigned := slices.Concat(files[2], line)
	if c, err := OpenCheckpoint(cosigned, verifier); err != nil || !slices.Equal(c.Others, []string{"witness.example/w1"}) {
		t.Errorf("cosigned: %+v, %v", c, err)
	}

	root := rootOf(nil)
	hash := tlog.Hash(root).String()
	for what, c := range map[string]struct {
		text string
		good bool
	}{
		"as it should be":   {origin + "\n0\n" + hash + "\n", true},
		"an extension":      {origin + "\n0\n" + hash + "\nmore\n", true},
		"an empty one":      {origin + "\n0\n" + hash + "\n\n", false},
		"another origin":    {"x\n0\n" + hash + "\n", false},
		"no origin":         {"\n0\n" + hash + "\n", false},
		"two lines":         {origin + "\n0\n", false},
		"a negative size":   {origin + "\n-1\n" + hash + "\n", false},
		"zeros in front":    {origin + "\n00\n" + hash + "\n", false},
		"a size too large":  {origin + "\n9223372036854775808\n" + hash + "\n", false},
		"no hash":           {origin + "\n0\nx\n", false},
		"a hash with blank": {origin + "\n0\n" + hash + " \n", false},
	} {
		file, err := note.Sign(&note.Note{Text: c.text}, signer)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := OpenCheckpoint(file, verifier); (err == nil) != c.good {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := OpenCheckpoint(make([]byte, MaxCheckpoint+1), verifier); !errors.Is(err, ErrFormat) {
		t.Errorf("a large one: %v", err)
	}
	changed := bytes.Replace(files[2], []byte("\n2\n"), []byte("\n3\n"), 1)
	if _, err := OpenCheckpoint(changed, verifier); !errors.Is(err, ErrFormat) {
		t.Errorf("a changed one: %v", err)
	}
}

// TestProofText: the forms of C2SP, and what is none.
func TestProofText(t *testing.T) {
	signer, verifier := key(t, origin, 1)
	l, files := filled(t, 3, signer)
	p, err := l.Prove(1, files[3])
	if err != nil {
		t.Fatal(err)
	}
	text := string(p.Marshal())
	want := fmt.Sprintf("c2sp.org/tlog-proof@v1\nindex 1\n%s\n%s\n\n%s", p.Hashes[0], p.Hashes[1], files[3])
	if text != want {
		t.Errorf("the proof is\n%s\nwant\n%s", text, want)
	}
	extra, err := ParseProof([]byte(strings.Replace(text, "\nindex", "\nextra AAAA\nindex", 1)))
	if err != nil || extra.Index != 1 {
		t.Errorf("with extra data: %+v, %v", extra, err)
	}
	for what, change := range map[string][2]string{
		"another title":       {"@v1", "@v2"},
		"no index":            {"index 1\n", ""},
		"an index with zeros": {"index 1", "index 01"},
		"no number":           {"index 1", "index x"},
		"a negative one":      {"index 1", "index -1"},
		"two extras":          {"\nindex", "\nextra AAAA\nextra AAAA\nindex"},
		"a line between":      {p.Hashes[1].String(), "x"},
		"no checkpoint":       {"\n\n", "\n"},
		"many hashes":         {"index 1\n", "index 1\n" + strings.Repeat(p.Hashes[0].String()+"\n", 64)},
		"a large one":         {"index 1\n", "index 1\n" + strings.Repeat("x", MaxProof)},
	} {
		changed := strings.Replace(text, change[0], change[1], 1)
		if _, err := ParseProof([]byte(changed)); !errors.Is(err, ErrFormat) || changed == text {
			t.Errorf("%s: %v", what, err)
		}
	}
	g, err := l.ProveGrowth(2, files[3])
	if err != nil {
		t.Fatal(err)
	}
	if text, want := string(g.Marshal()), fmt.Sprintf("old 2\n%s\n\n%s", g.Hashes[0], files[3]); text != want {
		t.Errorf("the growth is\n%s\nwant\n%s", text, want)
	}
	for what, text := range map[string]string{"a proof of a record": text, "no number": "old x\n\nx", "nothing": "\n\n"} {
		if _, err := ParseGrowth([]byte(text)); !errors.Is(err, ErrFormat) {
			t.Errorf("growth by %s: %v", what, err)
		}
	}
	_, stranger := key(t, origin, 2)
	if _, err := p.Verify(record(1), stranger); !errors.Is(err, ErrNobody) {
		t.Errorf("a proof of who knows whom: %v", err)
	}
	if _, err := g.Verify(Checkpoint{}, stranger); !errors.Is(err, ErrNobody) {
		t.Errorf("growth of who knows whom: %v", err)
	}
	empty, err := OpenCheckpoint(files[0], verifier)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (Growth{0, g.Hashes, files[3]}).Verify(empty, verifier); !errors.Is(err, ErrProof) {
		t.Errorf("growth from nothing with hashes: %v", err)
	}
}

// TestAppend: what does not fit, and two who write at once.
func TestAppend(t *testing.T) {
	signer, verifier := key(t, origin, 1)
	l, _ := filled(t, 1, signer)
	if _, err := l.Append(make([]byte, MaxRecord+1)); !errors.Is(err, ErrFormat) {
		t.Errorf("a large record: %v", err)
	}
	if err := new(Memory).Append(1, nil, nil); !errors.Is(err, ErrMoved) {
		t.Errorf("a record that leaves one out: %v", err)
	}
	if h, err := new(Memory).ReadHashes([]int64{0}); err == nil {
		t.Errorf("a hash of nothing: %v", h)
	}
	const writers, each = 4, 25
	done := make(chan int)
	for range writers {
		go func() {
			moved := 0
			for range each {
				for {
					if _, err := l.Append([]byte("x")); err == nil {
						break
					} else if !errors.Is(err, ErrMoved) {
						t.Error(err)
						break
					}
					moved++
				}
			}
			done <- moved
		}()
	}
	for range writers {
		<-done
	}
	file, err := l.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	if c, err := OpenCheckpoint(file, verifier); err != nil || c.Size != 1+writers*each {
		t.Errorf("%d writers: %+v, %v", writers, c, err)
	}
}

// FuzzProof: whatever is made of a proof proves nothing but what it proved.
func FuzzProof(f *testing.F) {
	signer, verifier := key(f, origin, 1)
	l, files := filled(f, 7, signer)
	p, err := l.Prove(4, files[7])
	if err != nil {
		f.Fatal(err)
	}
	base := p.Marshal()
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, script []byte) {
		q, err := ParseProof(edit.Apply(base, script))
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Error(err)
			}
			return
		}
		if again, err := ParseProof(q.Marshal()); err != nil || again.Index != q.Index || !slices.Equal(again.Hashes, q.Hashes) {
			t.Errorf("written and read again: %+v, %v", again, err)
		}
		if c, err := q.Verify(record(4), verifier); err == nil && (q.Index != 4 || c.Size != 7) {
			t.Errorf("record 4 is %d of %d", q.Index, c.Size)
		}
		if _, err := q.Verify(record(5), verifier); err == nil {
			t.Error("it proves another record")
		}
	})
}
