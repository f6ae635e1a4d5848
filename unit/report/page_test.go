package report

import (
	"crypto/x509"
	"os"
	"testing"
	"time"

	"gprovision/model/page"
	"gprovision/unit/state"
)

// TestNumbersOfThePage: the page of the records gives the right limits for what a unit may queue in one boot.
// TestQueueTalksTooMuch tests the behaviour.
func TestNumbersOfThePage(t *testing.T) {
	if debugBytes != 32<<20 || debugRecords != 50_000 {
		t.Errorf("%d bytes, %d records", debugBytes, debugRecords)
	}
	if err := page.Says(os.DirFS("../../docs"), "formats/records.md", "queues no debug records of a boot of which it has queued 32 MiB or 50,000 records"); err != nil {
		t.Error(err)
	}
}

// TestPatienceOfThePage: how long a unit keeps asking a server in trouble.
func TestPatienceOfThePage(t *testing.T) {
	c, err := New(Config{Endpoint: "h:1", CA: x509.NewCertPool(), Unit: "S1", Key: state.NewKey(), Boot: "b1"})
	if err != nil || c.c.Patience != 2*time.Minute {
		t.Errorf("%v, %v", c, err)
	}
	if err := page.Says(os.DirFS("../../docs"), "errors.md", "or it is busy or has trouble of its own for two minutes"); err != nil {
		t.Error(err)
	}
}
