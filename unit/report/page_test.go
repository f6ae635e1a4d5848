package report

import (
	"os"
	"testing"

	"gprovision/model/page"
)

// TestNumbersOfThePage: what a unit may queue of one boot, as the page of the records says it. TestQueueTalksTooMuch has the behaviour.
func TestNumbersOfThePage(t *testing.T) {
	if debugBytes != 32<<20 || debugRecords != 50_000 {
		t.Errorf("%d bytes, %d records", debugBytes, debugRecords)
	}
	if err := page.Says(os.DirFS("../../docs"), "formats/records.md", "queues no debug records of a boot of which it has queued 32 MiB or 50,000 records"); err != nil {
		t.Error(err)
	}
}
