package definition

import (
	"fmt"
)

// Limits of a file of scenarios.
const (
	maxScenarios = 500
	maxSteps     = 500 // of one
)

// ReadScenarios reads the scenarios of the file beside a definition,
// <name>.test.yaml: a list under `scenarios`. Whether the names in them exist,
// Play tells. Its error is *Problems.
func ReadScenarios(b []byte) ([]Scenario, error) {
	var file struct {
		Scenarios []Scenario `yaml:"scenarios"`
	}
	lines, err := decode(b, &file)
	if err != nil {
		return nil, err
	}
	p := &Problems{}
	if n := len(file.Scenarios); n > maxScenarios {
		return nil, problem(0, "%d scenarios are too many; at most %d", n, maxScenarios)
	}
	seen := map[string]bool{}
	for i := range file.Scenarios {
		s := &file.Scenarios[i]
		at := fmt.Sprintf("scenarios[%d]", i)
		s.line = lines[at]
		switch {
		case s.Name == "" || len(s.Name) > maxName*2:
			p.add(s.line, at, "a scenario has a name of at most %d bytes", maxName*2)
		case seen[s.Name]:
			p.add(s.line, at, "there is a scenario %q already", s.Name)
		case s.Start.IsZero():
			p.add(s.line, at, "say when it begins: start: 2026-11-22T08:00:00Z")
		case len(s.Steps) == 0 || len(s.Steps) > maxSteps:
			p.add(s.line, at, "a scenario has 1 to %d steps", maxSteps)
			continue
		}
		seen[s.Name] = true
		for j := range s.Steps {
			step := &s.Steps[j]
			where := fmt.Sprintf("%s.steps[%d]", at, j)
			step.line = lines[where]
			switch {
			case step.Do != "" && step.At == "":
				p.add(step.line, where, "say where it is done: at: party")
			case step.Do == "" && (step.At != "" || step.With != nil):
				p.add(step.line, where, "say what is done: do: form")
			case step.Do != "" && step.Wait != "":
				p.add(step.line, where, "an act and the passing of time are two steps")
			case step.Refused != "" && step.Do == "" && len(step.Deliver) == 0:
				p.add(step.line, where, "an act or a message is refused: say which")
			}
			if step.Wait != "" {
				if _, err := ParseDuration(step.Wait); err != nil {
					p.add(step.line, where, "%v", err)
				}
			}
		}
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	return file.Scenarios, nil
}
