"""Tables, sentences, figures and pages made of finished runs."""
