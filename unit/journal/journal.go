// Package journal is where every job of a unit logs. Records go to memory first, and from there to each sink once it
// is available.
//
// A Journal is a slog.Handler. Attach gives a sink everything that memory still holds, and then all later records, in
// order. Each sink has its own goroutine and its own bounded queue, so a slow or stuck sink never holds up a job. The
// records it misses are counted, and the next thing it gets is the count. Memory is bounded too: the oldest records
// go first, and a sink attached later is told how many it will not see.
//
// Each record says whom it is for (ForPerson, or else a technician), and what it is for the server (Kind, or else a line of
// the log). So whatever happens is logged once, and each place takes from that what belongs there.
//
// Attribute values become plain data when a record is made, so nothing changes them later. A value that hides itself,
// such as a secret.Secret, is hidden in all sinks.
//
// The package does not talk to the server. Follow passes records on to the queue of unit/report, which does.
// docs/formats/recovery-volume.md describes the JSON lines.
package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Sink is where records go. One goroutine at a time calls Write, which may be slow and may fail.
//
// A Sink may also have these methods. Accepts(Record) bool is asked before a record is queued: it must be quick and
// must not log. Flush() error makes what was written durable. Close() error is called when the sink is detached.
type Sink interface {
	Write(Record) error
}

type accepter interface{ Accepts(Record) bool }
type flusher interface{ Flush() error }

// Options limit the memory of a Journal. A zero value means the default.
type Options struct {
	// Records is how many records to keep. The default is 20000.
	Records int
	// Bytes is roughly how much memory they may take. The default is 8 MiB.
	Bytes int
	// Level is the lowest level to keep at all. The default is slog.LevelDebug.
	Level slog.Leveler
	// Now is the clock. The default is time.Now.
	Now func() time.Time
}

// Journal is the log of one run of a program. New makes one. Any goroutine may call any method at any time.
type Journal struct {
	o Options

	mu     sync.Mutex
	memory []Record // ring buffer: oldest first, from head
	head   int
	bytes  int
	lost   uint64 // records that memory dropped
	pumps  []*pump
	follow []func(Record)
	closed bool
}

// New returns an empty Journal without sinks.
func New(o Options) *Journal {
	if o.Records <= 0 {
		o.Records = 20000
	}
	if o.Bytes <= 0 {
		o.Bytes = 8 << 20
	}
	if o.Level == nil {
		o.Level = slog.LevelDebug
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Journal{o: o}
}

// Logger returns a logger that writes to j.
func (j *Journal) Logger() *slog.Logger { return slog.New(j.Handler()) }

// Handler returns the slog.Handler of j.
func (j *Journal) Handler() slog.Handler { return &handler{j: j} }

// ErrAttached means that a sink with that name is already attached.
var ErrAttached = errors.New("a sink of that name is attached")

// ErrClosed means that the journal is closed.
var ErrClosed = errors.New("the journal is closed")

// Attach adds a sink under a name. The sink gets all records in memory that it accepts, and then every later one.
// Attach does not wait for the sink. From then on the Journal owns the sink: Detach or Close closes it.
func (j *Journal) Attach(name string, s Sink) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return fmt.Errorf("attach %s: %w", name, ErrClosed)
	}
	if slices.ContainsFunc(j.pumps, func(p *pump) bool { return p.name == name }) {
		return fmt.Errorf("attach %s: %w", name, ErrAttached)
	}
	p := newPump(name, s, 2*j.o.Records, 2*j.o.Bytes, j.o.Now, j.sinkFailed)
	if j.lost > 0 {
		p.enqueue(droppedRecord(j.o.Now(), "records lost before this log began", j.lost))
	}
	for _, r := range j.memory[j.head:] {
		p.enqueue(r)
	}
	j.pumps = append(j.pumps, p)
	go p.run()
	return nil
}

// Follow calls f for each record in memory, and then for each later one before the call that logs it returns. So no record
// is on its way to f. f must be quick and must not log.
func (j *Journal) Follow(f func(Record)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, r := range j.memory[j.head:] {
		f(r)
	}
	j.follow = append(j.follow, f)
}

// Detach lets a sink finish its queue until ctx is done, and closes it. A stuck sink is abandoned, and the error says
// why. An unknown name is no error.
func (j *Journal) Detach(ctx context.Context, name string) error {
	j.mu.Lock()
	i := slices.IndexFunc(j.pumps, func(p *pump) bool { return p.name == name })
	if i < 0 {
		j.mu.Unlock()
		return nil
	}
	p := j.pumps[i]
	j.pumps = slices.Delete(j.pumps, i, i+1)
	j.mu.Unlock()
	return p.close(ctx)
}

// Flush waits until every sink has written and flushed all records made before the call, or ctx is done. The error
// names the sinks that did not finish.
func (j *Journal) Flush(ctx context.Context) error {
	return j.eachPump(func(p *pump) error { return p.flush(ctx) })
}

// Close ends the Journal. Later records are dropped. Sinks may finish until ctx is done and are then closed. The
// error names those that did not finish. It is fine to call Close twice.
func (j *Journal) Close(ctx context.Context) error {
	j.mu.Lock()
	j.closed = true
	j.mu.Unlock()
	err := j.eachPump(func(p *pump) error { return p.close(ctx) })
	j.mu.Lock()
	j.pumps = nil
	j.mu.Unlock()
	return err
}

func (j *Journal) eachPump(f func(*pump) error) error {
	j.mu.Lock()
	pumps := slices.Clone(j.pumps)
	j.mu.Unlock()
	errs := make([]error, len(pumps))
	var wg sync.WaitGroup
	for i, p := range pumps {
		wg.Go(func() { errs[i] = f(p) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Dropped returns how many records each attached sink has missed so far. The key "memory" has the number that memory
// dropped.
func (j *Journal) Dropped() map[string]uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	m := map[string]uint64{"memory": j.lost}
	for _, p := range j.pumps {
		m[p.name] = p.missed()
	}
	return m
}

// Records returns the records in memory, oldest first.
func (j *Journal) Records() []Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.memory[j.head:])
}

func (j *Journal) add(r Record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return
	}
	j.memory = append(j.memory, r)
	j.bytes += r.size()
	for n := len(j.memory) - j.head; n > 1 && (n > j.o.Records || j.bytes > j.o.Bytes); n-- {
		j.bytes -= j.memory[j.head].size()
		j.memory[j.head] = Record{}
		j.head++
		j.lost++
	}
	if j.head > len(j.memory)/2 && j.head > 64 {
		j.memory = append([]Record(nil), j.memory[j.head:]...)
		j.head = 0
	}
	for _, p := range j.pumps {
		p.enqueue(r)
	}
	for _, f := range j.follow {
		f(r)
	}
}

// sinkFailed tells all sinks that one of them fails. A pump calls it once per failure, until the sink works again.
func (j *Journal) sinkFailed(name string, err error) {
	j.add(Record{Time: j.o.Now(), Level: slog.LevelWarn, Message: "log sink fails", Attrs: []Attr{{"sink", name}, {"error", clip(err.Error(), maxString)}}})
}

func droppedRecord(now time.Time, msg string, n uint64) Record {
	return Record{Time: now, Level: slog.LevelWarn, Message: msg, Attrs: []Attr{{"count", n}}}
}

// pump carries records to one sink.
type pump struct {
	name       string
	sink       Sink
	maxRecords int
	maxBytes   int
	now        func() time.Time
	failed     func(name string, err error)

	mu      sync.Mutex
	queue   []Record
	bytes   int
	missing uint64 // missed, and the sink not yet told
	total   uint64 // missed in total
	in, out uint64 // records ever queued; records ever handled, including missed ones
	want    uint64 // flush requests
	flushed uint64 // flush requests served
	err     error  // of the last flush
	closing bool
	wake    chan struct{} // for the goroutine
	moved   chan struct{} // closed and replaced on progress
	done    chan struct{} // closed when the goroutine ends
}

func newPump(name string, s Sink, records, bytes int, now func() time.Time, failed func(string, error)) *pump {
	return &pump{name: name, sink: s, maxRecords: records, maxBytes: bytes, now: now, failed: failed,
		wake: make(chan struct{}, 1), moved: make(chan struct{}), done: make(chan struct{})}
}

func (p *pump) enqueue(r Record) {
	if a, ok := p.sink.(accepter); ok && !a.Accepts(r) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing {
		return
	}
	p.queue = append(p.queue, r)
	p.bytes += r.size()
	p.in++
	// Drop the oldest first: the newest records explain a failure.
	for len(p.queue) > 1 && (len(p.queue) > p.maxRecords || p.bytes > p.maxBytes) {
		p.bytes -= p.queue[0].size()
		p.queue = p.queue[1:]
		p.out++
		p.missing++
		p.total++
	}
	p.kick()
}

func (p *pump) kick() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *pump) missed() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.total
}

func (p *pump) run() {
	defer close(p.done)
	healthy := true
	for {
		p.mu.Lock()
		switch {
		case len(p.queue) > 0:
			r := p.queue[0]
			p.queue = p.queue[1:]
			p.bytes -= r.size()
			missing := p.missing
			p.missing = 0
			p.mu.Unlock()

			var err error
			if missing > 0 {
				err = p.write(droppedRecord(p.now(), "records dropped, this log was too slow", missing))
			}
			if err == nil {
				missing = 0
				err = p.write(r)
			}
			p.mu.Lock()
			if err != nil {
				p.missing += missing + 1
				p.total++
			}
			p.out++
			p.progress()
			p.mu.Unlock()
			if err != nil && healthy {
				p.failed(p.name, err)
			}
			healthy = err == nil
		case p.flushed < p.want:
			want := p.want
			p.mu.Unlock()
			err := p.doFlush()
			p.mu.Lock()
			p.flushed, p.err = want, err
			p.progress()
			p.mu.Unlock()
		case p.closing:
			p.mu.Unlock()
			if c, ok := p.sink.(io.Closer); ok {
				p.guard(c.Close)
			}
			return
		default:
			p.mu.Unlock()
			<-p.wake
		}
	}
}

func (p *pump) progress() {
	close(p.moved)
	p.moved = make(chan struct{})
}

func (p *pump) write(r Record) error { return p.guard(func() error { return p.sink.Write(r) }) }

func (p *pump) doFlush() error {
	if f, ok := p.sink.(flusher); ok {
		return p.guard(f.Flush)
	}
	return nil
}

// guard turns a panic in a sink into an error of that sink.
func (p *pump) guard(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return f()
}

func (p *pump) flush(ctx context.Context) error {
	p.mu.Lock()
	target := p.in
	p.want++
	want := p.want
	p.kick()
	for p.out < target || p.flushed < want {
		moved := p.moved
		p.mu.Unlock()
		select {
		case <-moved:
		case <-p.done:
			return nil
		case <-ctx.Done():
			p.mu.Lock()
			defer p.mu.Unlock()
			return fmt.Errorf("flush log sink %s: %d records are left: %w", p.name, p.in-p.out, ctx.Err())
		}
		p.mu.Lock()
	}
	err := p.err
	p.mu.Unlock()
	if err != nil {
		return fmt.Errorf("flush log sink %s: %w", p.name, err)
	}
	return nil
}

func (p *pump) close(ctx context.Context) error {
	err := p.flush(ctx)
	p.mu.Lock()
	p.closing = true
	p.kick()
	p.mu.Unlock()
	select {
	case <-p.done:
	case <-ctx.Done():
		if err == nil {
			err = fmt.Errorf("close log sink %s: %w", p.name, ctx.Err())
		}
	}
	return err
}
