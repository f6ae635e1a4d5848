package panel

import (
	"context"
	"io"
	"sync"
	"time"
)

// window is the time span over which a Meter computes its rate.
const window = 8 * time.Second

// Meter measures the progress of a step. Any goroutine may call any method.
type Meter struct {
	now func() time.Time

	mu          sync.Mutex
	done, total int64
	samples     []sample // at most one per half second, oldest first
}

type sample struct {
	at   time.Time
	done int64
}

// NewMeter returns a Meter for total units. 0 means that the total is unknown. now is the clock. nil means time.Now.
func NewMeter(now func() time.Time, total int64) *Meter {
	if now == nil {
		now = time.Now
	}
	return &Meter{now: now, total: total, samples: []sample{{at: now()}}}
}

// SetTotal replaces the total number of units.
func (m *Meter) SetTotal(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.total = n
}

// Add counts n more units as done.
func (m *Meter) Add(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.set(m.done + n)
}

// Set makes n the number of units done. If some were done before this run, as in a resumed download, call it once
// before the first Add. The rate then starts from there.
func (m *Meter) Set(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.done == 0 && len(m.samples) == 1 {
		m.samples[0] = sample{m.now(), n}
	}
	m.set(n)
}

func (m *Meter) set(n int64) {
	m.done = n
	now := m.now()
	if now.Sub(m.samples[len(m.samples)-1].at) < window/16 {
		return
	}
	m.samples = append(m.samples, sample{now, n})
	// Keep one sample older than the window, so that the rate always covers all of it.
	for len(m.samples) > 2 && now.Sub(m.samples[1].at) >= window {
		m.samples = m.samples[1:]
	}
}

// Progress returns the current progress. The rate of a step that stands still falls.
func (m *Meter) Progress() Progress {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := Progress{Done: m.done, Total: m.total, Left: -1}
	now := m.now()
	from := m.samples[0]
	for _, s := range m.samples[1:] {
		if now.Sub(s.at) < window {
			break
		}
		from = s
	}
	if t := now.Sub(from.at).Seconds(); t > 0 && m.done > from.done {
		p.Rate = float64(m.done-from.done) / t
	}
	switch {
	case m.total > 0 && m.done >= m.total:
		p.Left = 0
	case m.total > 0 && p.Rate > 0:
		if s := float64(m.total-m.done) / p.Rate; s < 1e7 {
			p.Left = time.Duration(s * float64(time.Second))
		}
	}
	return p
}

// Reader returns a reader that counts in m what is read from r. For a second pass, reset the count with Set.
func (m *Meter) Reader(r io.Reader) io.Reader { return &metered{r, m} }

type metered struct {
	r io.Reader
	m *Meter
}

func (r *metered) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.m.Add(int64(n))
	return n, err
}

// Watch calls show with the progress of m at once, then at each interval until ctx is done, and once more at the end.
// stop ends it and waits for the last call.
func (m *Meter) Watch(ctx context.Context, every time.Duration, show func(Progress)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(every)
		defer t.Stop()
		show(m.Progress())
		for {
			select {
			case <-t.C:
				show(m.Progress())
			case <-ctx.Done():
				show(m.Progress())
				return
			}
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}
