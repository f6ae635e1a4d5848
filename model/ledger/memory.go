package ledger

import (
	"fmt"
	"sync"

	"golang.org/x/mod/sumdb/tlog"
)

// Memory is a Store that lasts as long as the program: for tests, and for a log that is read in from elsewhere. The zero value is empty. It
// may be used by several at once.
type Memory struct {
	mu      sync.Mutex
	records int64
	hashes  []tlog.Hash
}

// Size returns how many records there are.
func (m *Memory) Size() (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.records, nil
}

// ReadHashes returns stored hashes.
func (m *Memory) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if x < 0 || x >= int64(len(m.hashes)) {
			return nil, fmt.Errorf("read hash %d of %d: there is none", x, len(m.hashes))
		}
		out[i] = m.hashes[x]
	}
	return out, nil
}

// Append stores the hashes of record n. The record itself is not kept.
func (m *Memory) Append(n int64, _ []byte, hashes []tlog.Hash) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n != m.records {
		return fmt.Errorf("there are %d records: %w", m.records, ErrMoved)
	}
	m.records++
	m.hashes = append(m.hashes, hashes...)
	return nil
}
