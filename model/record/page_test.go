package record

import (
	"crypto/sha256"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"gprovision/model/page"
)

// TestPage holds docs/formats/records.md against the types: the kinds of events, their sources, jobs and states, and the numbers.
func TestPage(t *testing.T) {
	docs := os.DirFS("../../docs")
	rows, err := page.Rows(docs, "formats/records.md", "## Events")
	if err != nil {
		t.Fatal(err)
	}
	cell := map[string]string{}
	for _, r := range rows {
		for _, name := range page.Codes(r[0]) {
			cell[name] = r[1]
		}
	}
	state := cell["state"]
	if jobs, rest, ok := strings.Cut(state, "), `state` ("); !ok {
		t.Errorf("the row of state is %q", state)
	} else {
		_, jobs, _ = strings.Cut(jobs, "(")
		states, _, _ := strings.Cut(rest, ")")
		same(t, "jobs", page.Codes(jobs), JobProvision, JobRestore, JobRepair, JobBoot, JobRunning)
		same(t, "states", page.Codes(states), Started, Step, Succeeded, Failed)
	}
	same(t, "kinds", page.Codes(cell["kind"]), KindLog, KindState, KindFact, KindQA, KindDocument)
	same(t, "sources", page.Codes(cell["source"]), Observed, Requested, Inferred)
	for says, ok := range map[string]bool{
		"letters, digits, dashes, at most 64":          MaxBoot == 64,
		"text, at most 8 KiB":                          MaxMessage == 8<<10,
		"UTC, within 10 minutes of the server's clock": MaxSkew == 10*time.Minute,
		"the first 60 bits of the SHA-256 of `gprov-key`, a newline and the public key, as twelve characters of Crockford's base 32 in three groups": Fingerprint([]byte("key")) == fingerprintOf("key"),
	} {
		if !ok {
			t.Errorf("the page says %q, and it is not so", says)
		}
		if err := page.Says(docs, "formats/records.md", says); err != nil {
			t.Error(err)
		}
	}
}

func same[T ~string](t *testing.T, what string, said []string, have ...T) {
	t.Helper()
	var names []string
	for _, h := range have {
		names = append(names, string(h))
	}
	slices.Sort(said)
	slices.Sort(names)
	if !slices.Equal(said, names) {
		t.Errorf("%s: the page has %v, the code %v", what, said, names)
	}
}

// fingerprintOf is the fingerprint of a key by the words of the page.
func fingerprintOf(key string) string {
	sum := sha256.Sum256([]byte("gprov-key\n" + key))
	bits := new(big.Int).Rsh(new(big.Int).SetBytes(sum[:]), 256-60)
	text := ""
	for range 12 {
		five := new(big.Int).And(bits, big.NewInt(31)).Int64()
		text = string("0123456789ABCDEFGHJKMNPQRSTVWXYZ"[five]) + text
		bits.Rsh(bits, 5)
	}
	return text[:4] + "-" + text[4:8] + "-" + text[8:]
}
