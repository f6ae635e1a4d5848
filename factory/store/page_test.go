package store

import (
	"os"
	"testing"
	"time"

	"gprovision/model/page"
)

// TestNumbersOfThePage: the page of the records gives the right limits for what units may store, and for how long
// things stay.
func TestNumbersOfThePage(t *testing.T) {
	b := defaultBounds()
	for says, ok := range map[string]bool{
		"One boot of a unit may store 64 MiB and 100,000 records, documents included, the last eighth for what is not a log record": b.boot == usage{64 << 20, 100_000},
		"a unit in all 256 MiB of events":                             b.unit.bytes == 256<<20,
		"and 128 MiB of documents, of which the newest stay":          b.documents == 128<<20,
		"as long as less than 2 GiB are free on the server's disk":    diskLow == 2<<30,
		"16 tokens and 8 keys that wait":                              maxTokensAddress == 16 && maxPendingAddress == 8,
		"a key that waits for a day without asking again is rejected": pendingAge == 24*time.Hour,
		"A unit may store 64 certificates and 32 MiB of them, and 1,024 states of drives and 16 MiB of them": maxErases == 64 &&
			maxEraseBytes == 32<<20 && maxBefore == 1024 && maxBeforeBytes == 16<<20,
		"403 `rejected`, for two days": 2*pendingAge == 48*time.Hour,
	} {
		if !ok {
			t.Errorf("the page says %q, and it is not so", says)
		}
		if err := page.Says(os.DirFS("../../docs"), "formats/records.md", says); err != nil {
			t.Error(err)
		}
	}
}
