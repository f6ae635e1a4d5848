package state

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// BoardsFile is where Boards are.
const BoardsFile = "state/boards.json"

// maxBoards is how many mainboards of a unit are known. The oldest one is forgotten.
const maxBoards = 16

// Boards are the mainboards that took the place of a unit's first one. The unit keeps the serial number of that.
type Boards struct {
	rest
	// Version is the format version.
	Version int `json:"version"`
	// Serials are the serial numbers in the firmware of the mainboards, the oldest first.
	Serials []string `json:"serials"`
}

func (b Boards) validate() error {
	if len(b.Serials) > maxBoards {
		return fmt.Errorf("%d serial numbers, at most %d", len(b.Serials), maxBoards)
	}
	for _, s := range b.Serials {
		if s == "" {
			return errors.New("a serial number is empty")
		}
		if err := printable("serial number", s, 256); err != nil {
			return err
		}
	}
	return nil
}

// ReadBoards returns the mainboards that were adopted. If the file is missing, there are none.
func ReadBoards(v *Volume) (Boards, error) {
	b, err := v.read(BoardsFile, maxSmall)
	if errors.Is(err, fs.ErrNotExist) {
		return Boards{}, nil
	}
	if err != nil {
		return Boards{}, err
	}
	return parse[Boards](BoardsFile, b)
}

// AddBoard adds a mainboard. A damaged file begins anew: a person has just said which mainboard it is.
func AddBoard(v *Volume, serial string) error {
	b, err := ReadBoards(v)
	if err != nil && !errors.Is(err, ErrDamaged) {
		return err
	}
	if slices.Contains(b.Serials, serial) {
		return nil
	}
	b.Serials = append(b.Serials, serial)
	b.Serials = b.Serials[max(0, len(b.Serials)-maxBoards):]
	b.Version = Version
	return v.writeJSON(BoardsFile, b, b.validate(), 0o600)
}
