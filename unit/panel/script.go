package panel

import (
	"slices"
	"sync"
)

// Script is a Panel for tests: it remembers the views, and presses keys. The zero value is ready.
type Script struct {
	// Answer, if there is one, is called once for each question, and the keys that it returns are pressed.
	Answer func(Asked) []Key

	mu    sync.Mutex
	views []View
	keys  chan Key
	asked int // the last question that was answered
}

// Show remembers v, and answers a question in it.
func (s *Script) Show(v View) error {
	s.mu.Lock()
	s.views = append(s.views, v)
	fresh := v.Ask != nil && v.Ask.ID != s.asked && s.Answer != nil
	if fresh {
		s.asked = v.Ask.ID
	}
	s.mu.Unlock()
	if fresh {
		s.Press(s.Answer(*v.Ask)...)
	}
	return nil
}

// Keys returns the channel of the keys that are pressed.
func (s *Script) Keys() <-chan Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys == nil {
		s.keys = make(chan Key, 256)
	}
	return s.keys
}

// Types says that a Script can type.
func (s *Script) Types() bool { return true }

// Press presses keys. More than 256 that nobody takes are waited for.
func (s *Script) Press(keys ...Key) {
	s.Keys()
	for _, k := range keys {
		s.keys <- k
	}
}

// Type presses the keys of a text.
func (s *Script) Type(text string) {
	for _, c := range []byte(text) {
		s.Press(Key(c))
	}
}

// Views returns all views in order.
func (s *Script) Views() []View {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.views)
}
